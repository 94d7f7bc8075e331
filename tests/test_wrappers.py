"""Inside Optax's wrappers, and beside its transformations."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
from cases import CASES, decays_matrices, gradients_like, mixed_params, problem, walk

import adamw_jax as aj

PARAMS = {"kernel": jnp.float32([[1.0, -2.0]]), "bias": jnp.float32([0.5, 3.0])}
CLOSE = {"rtol": 1e-4, "atol": 1e-6}
# It has every piece of Adam's, and decay.
(ADAMW,) = (case for case in CASES if case.name == "adamw")


WRAPPERS = {
    "chain": lambda tx: optax.chain(optax.clip_by_global_norm(1.0), tx, optax.scale(2.0)),
    "MultiSteps 2": lambda tx: optax.MultiSteps(tx, 2).gradient_transformation(),
    "MultiSteps 3": lambda tx: optax.MultiSteps(tx, 3).gradient_transformation(),
    "masked function": lambda tx: optax.masked(tx, decays_matrices),
    "masked tree": lambda tx: optax.masked(tx, {"kernel": False, "bias": True}),
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 3),
    "flatten": optax.flatten,
    "schedule_free": lambda tx: optax.contrib.schedule_free(tx, 0.1),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_works_in_the_wrapper_as_optax_does(wrap):
    ours, peer = (walk(wrap(lib.adamw(0.1)), PARAMS, steps=4)[0] for lib in (aj, optax))
    chex.assert_trees_all_close(ours, peer, **CLOSE)


def test_partition_gives_each_label_its_optimizer():
    labels = {"kernel": "decayed", "bias": "plain"}
    parts = [
        {"decayed": adamw(0.1, weight_decay=0.5), "plain": sgd(0.1)}
        for adamw, sgd in [(aj.adamw, aj.gd), (optax.adamw, optax.sgd)]
    ]
    ours, peer = (walk(optax.partition(part, labels), PARAMS)[0] for part in parts)
    chex.assert_trees_all_close(ours, peer, **CLOSE)


def test_apply_if_finite_leaves_the_state_of_a_bad_step():
    tx = optax.apply_if_finite(aj.adamw(0.1), 3)
    _, state = walk(tx, PARAMS)
    bad = jax.tree.map(lambda x: x * jnp.nan, PARAMS)
    updates, after = jax.jit(tx.update)(bad, state, PARAMS)
    chex.assert_trees_all_equal(updates, jax.tree.map(jnp.zeros_like, PARAMS))
    chex.assert_trees_all_equal(after.inner_state, state.inner_state)


def test_inject_hyperparams_makes_every_number_a_part_of_the_state():
    make, peer = (optax.inject_hyperparams(lib.adamw) for lib in (aj, optax))
    ours, peer = make(0.1, b1=0.8), peer(0.1, b1=0.8)
    updates, state = walk(ours, PARAMS)
    expected, peer_state = walk(peer, PARAMS)
    chex.assert_trees_all_close(updates, expected, **CLOSE)
    assert state.hyperparams.keys() == peer_state.hyperparams.keys()
    # Setting the rate to zero by hand stops the parameters, in the same compilation.
    chex.clear_trace_counter()
    update = jax.jit(chex.assert_max_traces(ours.update, 1))
    update(PARAMS, state, PARAMS)
    state.hyperparams["learning_rate"] = jnp.zeros_like(state.hyperparams["learning_rate"])
    updates, _ = update(PARAMS, state, PARAMS)
    chex.assert_trees_all_equal(updates, jax.tree.map(jnp.zeros_like, PARAMS))


def test_inject_hyperparams_follows_schedules_of_any_hyperparameter():
    schedules = {
        "learning_rate": optax.linear_schedule(0.1, 0.01, 5),
        "b1": optax.linear_schedule(0.5, 0.9, 5),
        "weight_decay": optax.linear_schedule(0.0, 1.0, 5),
    }
    ours, peer = (optax.inject_hyperparams(lib.adamw)(**schedules) for lib in (aj, optax))
    chex.assert_trees_all_close(walk(ours, PARAMS, 5)[0], walk(peer, PARAMS, 5)[0], **CLOSE)


def test_inject_hyperparams_works_on_complex_parameters():
    # Optax hands hyperparameters over in the widest dtype of the parameters: complex here.
    params = mixed_params()["complex64"]
    tx = optax.inject_hyperparams(ADAMW.make)(**ADAMW.numbers)
    updates, _ = walk(tx, params)
    expected, _ = walk(ADAMW.tx(), params)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)
    chex.assert_trees_all_close(updates, expected, rtol=1e-4)


def test_inject_hyperparams_in_float32_keeps_half_precision():
    params = mixed_params()["bfloat16"]
    tx = optax.inject_hyperparams(ADAMW.make, hyperparam_dtype=jnp.float32)(**ADAMW.numbers)
    updates, _ = walk(tx, params)
    expected, _ = walk(ADAMW.tx(), params)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)
    chex.assert_trees_all_close(updates, expected, rtol=1e-2)


def test_inject_hyperparams_takes_a_mask_as_a_static_argument():
    make = optax.inject_hyperparams(aj.adamw, static_args=("mask", "mu_dtype"))
    tx = make(0.1, weight_decay=0.5, mask=decays_matrices, mu_dtype=jnp.bfloat16)
    updates, state = walk(tx, PARAMS)
    expected, _ = walk(aj.adamw(0.1, weight_decay=0.5, mask=decays_matrices), PARAMS)
    assert optax.tree.get(state, "mu")["bias"].dtype == jnp.bfloat16
    chex.assert_trees_all_close(updates, expected, rtol=1e-2)


def test_map_params_maps_the_moments_and_leaves_the_counts():
    for tx in aj.adamw(lambda step: 0.1), aj.adamw(0.1, mask=decays_matrices):
        _, state = walk(tx, PARAMS)
        mapped = optax.tree.map_params(tx, lambda m: jnp.full_like(m, 7), state)
        chex.assert_trees_all_equal_structs(mapped, state)
        for name in "mu", "nu":
            for leaf in jax.tree.leaves(optax.tree.get(mapped, name)):
                assert jnp.all(leaf == 7)
        counts = [count for _, count in optax.tree.get_all_with_path(mapped, "count")]
        assert counts and all(count == 3 for count in counts)


def test_map_params_can_take_shardings_leaf_by_leaf():
    tx = aj.adamw(0.1)
    specs = {"kernel": "rows", "bias": "replicated"}
    mapped = optax.tree.map_params(
        tx, lambda _, spec: spec, tx.init(PARAMS), specs, transform_non_params=lambda _: "none"
    )
    assert optax.tree.get(mapped, "mu") == optax.tree.get(mapped, "nu") == specs


def test_state_fields_have_the_names_of_optax():
    tx, peer = aj.adamw(0.1), optax.adamw(0.1)
    (_, state), (_, expected) = walk(tx, PARAMS), walk(peer, PARAMS)
    for name in "mu", "nu":
        chex.assert_trees_all_close(
            optax.tree.get(state, name), optax.tree.get(expected, name), rtol=1e-5
        )
    assert optax.tree.get(state, "count") == optax.tree.get(expected, "count") == 3


def test_reduce_on_plateau_gets_the_value_it_wants():
    def make(lib):
        plateau = optax.contrib.reduce_on_plateau(factor=0.5, patience=1, accumulation_size=1)
        return lib.chain(lib.adam(0.1), plateau)

    results = []
    for tx in make(aj), make(optax):
        state = tx.init(PARAMS)
        for seed in range(6):
            gradients = gradients_like(PARAMS, seed)
            updates, state = tx.update(gradients, state, PARAMS, value=jnp.float32(1.0))
        results.append(updates)
        assert optax.tree.get(state, "scale") < 1
    chex.assert_trees_all_close(*results, **CLOSE)


@pytest.mark.parametrize(
    "tx",
    [
        aj.chain(aj.momentum(0.0), optax.polyak_sgd()),
        aj.chain(aj.gd(1.0), optax.scale_by_backtracking_linesearch(10)),
        aj.chain(aj.gd(1.0), optax.scale_by_zoom_linesearch(10)),
    ],
    ids=["polyak", "backtracking", "zoom"],
)
def test_step_sizes_that_need_the_value_or_the_loss_get_them(tx):
    def loss(params):
        return sum(jnp.sum((x - 1) ** 2) for x in jax.tree.leaves(params))

    @jax.jit
    def step(params, state):
        value, grad = jax.value_and_grad(loss)(params)
        updates, state = tx.update(grad, state, params, value=value, grad=grad, value_fn=loss)
        return optax.apply_updates(params, updates), state

    params, state = PARAMS, tx.init(PARAMS)
    for _ in range(10):
        params, state = step(params, state)
    assert loss(params) < 1e-3


def test_multisteps_averages_small_batches_into_the_same_run():
    tx = optax.MultiSteps(aj.adamw(0.1), every_k_schedule=4).gradient_transformation()
    state = tx.init(PARAMS)
    plain, plain_state = aj.adamw(0.1), aj.adamw(0.1).init(PARAMS)
    for seed in range(3):
        gradients = gradients_like(PARAMS, seed)
        for share in 0.5, 1.5, 0.0, 2.0:
            part = jax.tree.map(lambda g, share=share: share * g, gradients)
            updates, state = tx.update(part, state, PARAMS)
        expected, plain_state = plain.update(gradients, plain_state, PARAMS)
        chex.assert_trees_all_close(updates, expected, **CLOSE)


def test_schedule_free_and_ema_follow_a_whole_run():
    quadratics = problem(300)
    for wrap in (
        lambda lib: optax.contrib.schedule_free(lib.adam(1e-2, b1=0.0), 1e-2),
        lambda lib: optax.chain(lib.adamw(1e-2), optax.ema(0.9)),
    ):
        ours, peer = (quadratics.descend(wrap(lib)) for lib in (aj, optax))
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-3), ours, peer)
