import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import adamw_jax
from experiments.training.addition import Adder, addition_run, decayed, modular_addition

P, EMBEDDING, HIDDEN = 23, 32, 64
PAIRS = modular_addition(P, 0.7, 0)


@functools.cache  # so that the tests share compilations
def pair():
    return addition_run(decayed, P, EMBEDDING, HIDDEN, steps=1500, evaluations=100)


def hyperparameters(weight_decay=1.0, learning_rate=1e-2):
    numbers = {"learning_rate": learning_rate, "weight_decay": weight_decay}
    return {name: jnp.float32(value) for name, value in numbers.items()}


def trained(run, pairs, advances=1, seed=0, **changed):
    start, advance = jax.jit(run.start), jax.jit(run.advance)
    state = start(hyperparameters(**changed), jax.random.key(seed), pairs)
    for _ in range(advances):
        state, metrics = advance(state, pairs)
    return state, metrics


@nnx.jit
def network(key):
    return Adder(P, EMBEDDING, HIDDEN, rngs=nnx.Rngs(key))


@pytest.mark.parametrize(("p", "share", "seed"), [(2, 0.5, 0), (7, 0.3, 1), (31, 0.6, 2)])
def test_the_split_is_a_partition_of_all_pairs(p, share, seed):
    train, test = modular_addition(p, share, seed).values()
    assert len(train.sums) == len(train.pairs) == round(share * p * p)
    both = np.concatenate([train.pairs, test.pairs])
    assert sorted(map(tuple, both)) == [(a, b) for a in range(p) for b in range(p)]
    for split in train, test:
        assert split.pairs.dtype == split.sums.dtype == jnp.int32
        np.testing.assert_array_equal(split.sums, [(a + b) % p for a, b in np.asarray(split.pairs)])


def test_seeds_part_differently_and_always_alike():
    chex.assert_trees_all_equal(modular_addition(P, 0.5, 0), modular_addition(P, 0.5, 0))
    first, other = (modular_addition(P, 0.5, seed)["train"].pairs for seed in (0, 1))
    assert not np.array_equal(first, other)


def test_the_network_is_a_layer_on_the_joined_embeddings():
    adder = network(jax.random.key(0))
    pairs = PAIRS["train"].pairs
    f64 = lambda x: np.asarray(x[...], np.float64)  # noqa: E731
    joined = f64(adder.numbers.embedding)[np.asarray(pairs)].reshape(len(pairs), -1)
    kernel = np.concatenate([f64(adder.first.kernel), f64(adder.second.kernel)])
    hidden = np.maximum(joined @ kernel + f64(adder.first.bias), 0)
    expected = hidden @ f64(adder.logits.kernel) + f64(adder.logits.bias)
    np.testing.assert_allclose(adder(pairs), expected, atol=1e-5)


def test_an_advance_is_the_loop_that_one_would_write():
    run, pairs, key = pair(), PAIRS, jax.random.key(1)
    start, advance = jax.jit(run.start), jax.jit(run.advance)
    state, metrics = advance(start(hyperparameters(), key, pairs), pairs)

    adder = network(jax.random.split(key)[1])
    tx = adamw_jax.adamw(1e-2, b2=0.98, weight_decay=1.0)
    optimizer = nnx.Optimizer(adder, tx, wrt=nnx.Param)

    @nnx.jit
    def measure(adder, split):
        chosen = jax.nn.log_softmax(adder(split.pairs))[jnp.arange(len(split.sums)), split.sums]
        return -chosen.mean()

    @nnx.jit
    def step(adder, optimizer):
        optimizer.update(adder, nnx.grad(measure)(adder, pairs["train"]))

    for _ in range(15):
        before_last_step = measure(adder, pairs["train"])
        step(adder, optimizer)
    expected = nnx.as_pure(nnx.state(adder, nnx.Param))
    chex.assert_trees_all_close(state.params, expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(metrics["train_loss"], before_last_step, rtol=1e-4)
    np.testing.assert_allclose(metrics["test_loss"], measure(adder, pairs["test"]), rtol=1e-4)
    accuracy = np.mean(np.argmax(adder(pairs["test"].pairs), -1) == pairs["test"].sums)
    np.testing.assert_allclose(metrics["test_accuracy"], accuracy, rtol=1e-5)
    leaves = [np.ravel(leaf) for leaf in jax.tree.leaves(expected)]
    np.testing.assert_allclose(
        metrics["weight_norm"], np.linalg.norm(np.concatenate(leaves)), rtol=1e-5
    )


def test_weight_decay_decides_whether_the_network_generalizes():
    for decay, low, high in (0.0, 0.0, 0.3), (1.0, 0.9, 1.0):
        _, metrics = trained(pair(), PAIRS, pair().length, weight_decay=decay)
        assert metrics["train_accuracy"] == 1
        assert low <= metrics["test_accuracy"] <= high


def test_numbers_and_splits_are_data(compilations):
    run, norms = pair(), set()
    splits = [modular_addition(P, 0.7, seed) for seed in range(3)]
    for decay, pairs in zip([0.0, 0.3, 0.3], splits, strict=True):
        norms.add(float(trained(run, pairs, weight_decay=decay)[1]["weight_norm"]))
        if len(norms) == 1:
            compilations.clear()
    assert len(norms) == 3 and not compilations
    state = jax.eval_shape(run.start, hyperparameters(), jax.random.key(0), PAIRS)
    assert not any(np.size(c) > 1 for c in jax.make_jaxpr(run.advance)(state, PAIRS).consts)


def test_the_pair_maps_over_hyperparameters_and_seeds():
    run, pairs = pair(), PAIRS
    decays = jnp.array([0.0, 0.1, 1.0])
    together = {"learning_rate": jnp.full(3, 1e-2), "weight_decay": decays}
    keys = jax.vmap(jax.random.key)(jnp.arange(3))
    states = jax.jit(jax.vmap(run.start, (0, 0, None)))(together, keys, pairs)
    _, metrics = jax.jit(jax.vmap(run.advance, (0, None)))(states, pairs)
    for i, decay in enumerate(decays):
        _, alone = trained(run, pairs, seed=i, weight_decay=decay)
        lane = jax.tree.map(lambda m, i=i: m[i], metrics)
        chex.assert_trees_all_close(lane, alone, rtol=2e-3, atol=2e-3)


def test_evaluations_divide_the_steps():
    with pytest.raises(ValueError, match="3 evaluations do not divide 10 epochs"):
        addition_run(decayed, P, EMBEDDING, HIDDEN, steps=10, evaluations=3)
