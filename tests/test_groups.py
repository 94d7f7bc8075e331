"""Groups of parameters by rule: each gets its own optimizer, and nobody is left over."""

import chex
import jax
import jax.numpy as jnp
import optax
import pytest
from cases import gradients_like, walk
from flax import nnx
from flax.training.train_state import TrainState
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from transformer import MODELS, TOKENS, by_path, loss_of, nnx_module, transformer

import adamw_jax as aj

PARAMS = {
    "embed": {"embedding": jnp.linspace(0.5, 2, 6).reshape(3, 2)},
    "layer": {"kernel": jnp.linspace(-2, -0.5, 4).reshape(2, 2), "bias": jnp.ones(2)},
    "head": {"kernel": jnp.linspace(0.1, 0.9, 4).reshape(2, 2), "bias": -jnp.ones(2)},
}


def decaying(**hyperparameters):
    return aj.adamw(0.1, weight_decay=0.5, **hyperparameters)


def injected(learning_rate):
    return optax.inject_hyperparams(aj.adamw)(learning_rate, weight_decay=0.5)


def in_two_steps(tx):
    return optax.MultiSteps(tx, 2).gradient_transformation()


FALLING = optax.linear_schedule(0.5, 0.0, 4)
# Rules with their optimizers, and for each the paths that it is to have.
EMBEDDING, LAYER = {"embed/embedding"}, {"layer/kernel", "layer/bias"}
HEAD, BIASES = {"head/kernel", "head/bias"}, {"layer/bias", "head/bias"}
KERNELS = {"layer/kernel", "head/kernel"}
GROUPS = {
    "one group": [("*", decaying(), EMBEDDING | LAYER | HEAD)],
    "kinds": [
        (aj.kind("embedding"), aj.adam(0.1), EMBEDDING),
        (aj.kind("bias"), aj.gd(0.1), BIASES),
        (aj.kind("weight"), decaying(), KERNELS),
    ],
    "strings and paths": [
        ("head/*", aj.lion(0.1), HEAD),
        (aj.path("layer/*"), aj.sgdw(0.1), LAYER),
        ("embed/?mbedding", aj.gd(0.1), EMBEDDING),
    ],
    "the first rule wins": [
        ("head/*", aj.gd(0.3), HEAD),
        (aj.kind("bias"), aj.gd(0.1), {"layer/bias"}),
        ("*", aj.adam(0.2), EMBEDDING | {"layer/kernel"}),
    ],
    "the other order": [
        (aj.kind("bias"), aj.gd(0.1), BIASES),
        ("head/*", aj.gd(0.3), {"head/kernel"}),
        ("*", aj.adam(0.2), EMBEDDING | {"layer/kernel"}),
    ],
    "Optax's": [
        ("head/*", optax.adamw(0.1), HEAD),
        ("*", optax.chain(optax.clip(0.5), aj.gd(0.1)), EMBEDDING | LAYER),
    ],
    "schedules": [
        ("head/*", aj.adamw(FALLING, weight_decay=0.5), HEAD),
        ("*", aj.decayed_per_step(aj.adam(0.1), 0.05, FALLING), EMBEDDING | LAYER),
    ],
    "masks by rule": [
        ("head/*", decaying(mask=aj.decay_except()), HEAD),
        ("*", aj.adam_prox(0.1, mask=aj.decay_only("*/kernel")), EMBEDDING | LAYER),
    ],
    "MultiSteps": [
        ("head/*", in_two_steps(decaying()), HEAD),
        ("*", aj.gd(0.1), EMBEDDING | LAYER),
    ],
    "inject_hyperparams": [
        ("head/*", injected(0.1), HEAD),
        ("*", injected(FALLING), EMBEDDING | LAYER),
    ],
    "groups in a group": [
        ("head/*", aj.partition({aj.kind("bias"): aj.gd(0.1), "*": aj.gd(0.3)}), HEAD),
        ("*", aj.momentum_gd(0.1), EMBEDDING | LAYER),
    ],
}
every_group = pytest.mark.parametrize("groups", GROUPS.values(), ids=GROUPS)


def partition(groups):
    return aj.partition({rule: tx for rule, tx, _ in groups})


def only(tree, paths):
    """The same tree with None in place of all other parameters."""
    flat, structure = jax.tree.flatten(tree)
    names = by_path(tree)
    return structure.unflatten(x if n in paths else None for n, x in zip(names, flat, strict=True))


def moving(tx, params, steps=4):
    """The parameters and the state after a few steps, as they move."""
    state = tx.init(params)
    for seed in range(steps):
        updates, state = tx.update(gradients_like(params, seed), state, params)
        params = optax.apply_updates(params, updates)
    return params, state


@every_group
def test_each_parameter_moves_as_under_its_own_optimizer_alone(groups):
    # The gradients are drawn for the whole tree, so that they are the same alone.
    state, params = partition(groups).init(PARAMS), PARAMS
    alone = [(tx, only(PARAMS, paths), paths) for _, tx, paths in groups]
    states = [tx.init(params) for tx, params, _ in alone]
    parts = [params for _, params, _ in alone]
    for seed in range(4):
        gradients = gradients_like(PARAMS, seed)
        updates, state = partition(groups).update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        for i, (tx, _, paths) in enumerate(alone):
            updates, states[i] = tx.update(only(gradients, paths), states[i], parts[i])
            parts[i] = optax.apply_updates(parts[i], updates)
    covered = [path for part in parts for path in by_path(part)]
    assert sorted(covered) == sorted(by_path(PARAMS))
    for part in parts:
        for path, expected in by_path(part).items():
            chex.assert_trees_all_equal(by_path(params)[path], expected)


@every_group
def test_is_optaxs_partition_with_the_labels_written_out(groups):
    labels = {path: str(i) for i, (*_, paths) in enumerate(groups) for path in paths}
    label_tree = jax.tree.structure(PARAMS).unflatten(labels[path] for path in by_path(PARAMS))
    peer = optax.partition({str(i): tx for i, (_, tx, _) in enumerate(groups)}, label_tree)
    (ours, state), (expected, peer_state) = moving(partition(groups), PARAMS), moving(peer, PARAMS)
    chex.assert_trees_all_equal(ours, expected)
    # The groups go by their rules where Optax's go by labels.
    rules = [str(aj.path(rule) if isinstance(rule, str) else rule) for rule, *_ in groups]
    assert list(state.inner_states) == rules
    for i, rule in enumerate(rules):
        chex.assert_trees_all_equal(state.inner_states[rule], peer_state.inner_states[str(i)])


def test_state_shared_by_name_is_found_with_optax():
    tx = partition(GROUPS["kinds"])
    _, state = walk(tx, PARAMS, steps=3)
    counts = [int(count) for _, count in optax.tree.get_all_with_path(state, "count")]
    assert counts == [3, 3]  # one in each of two groups
    assert len(optax.tree.get_all_with_path(state, "mu")) == 2


@every_group
def test_updates_and_states_keep_their_types_and_are_traced_once(groups):
    tx = partition(groups)
    state = tx.init(PARAMS)
    chex.clear_trace_counter()
    update = jax.jit(chex.assert_max_traces(tx.update, 1))
    updates, after = update(gradients_like(PARAMS), state, PARAMS)
    update(gradients_like(PARAMS, 2), after, PARAMS)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, PARAMS)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert jax.tree.map(jax.typeof, after) == jax.tree.map(jax.typeof, state)


def test_mixed_dtypes_keep_theirs():
    params = {
        "bias": jnp.ones(2, jnp.bfloat16),
        "kernel": jnp.ones((2, 2), jnp.float16),
        "phase": jnp.ones(2, jnp.complex64),
    }
    tx = aj.partition({"bias": decaying(), "kernel": aj.lion(0.1), "*": aj.adam(0.1)})
    updates, state = walk(tx, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)
    assert jax.tree.map(jax.typeof, state) == jax.tree.map(jax.typeof, tx.init(params))


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit], ids=str)
def test_states_are_sharded_as_their_parameters(axis_type):
    mesh = jax.make_mesh((4,), ("x",), axis_types=(axis_type,))
    rows, columns = (NamedSharding(mesh, PartitionSpec(*spec)) for spec in (("x",), (None, "x")))
    params = {
        "kernel": jax.device_put(jnp.ones((8, 4)), rows),
        "embedding": jax.device_put(jnp.ones((2, 8)), columns),
    }
    tx = aj.partition({aj.kind("embedding"): aj.adam(0.1), "*": decaying()})
    for update in tx.update, jax.jit(tx.update):
        state = tx.init(params)
        updates, after = update(params, state, params)
        for x in jax.tree.leaves((updates, state, after)):
            if x.ndim:
                sharding = rows if x.shape == (8, 4) else columns
                assert x.sharding.is_equivalent_to(sharding, x.ndim)


# What it refuses


def test_parameters_that_no_rule_picks_are_listed():
    tx = aj.partition({"head/*": aj.gd(0.1), aj.kind("embedding"): aj.gd(0.1)})
    with pytest.raises(ValueError) as caught:
        tx.init(PARAMS)
    assert str(caught.value) == (
        "no rule of partition matches these parameters:\n  layer/bias  (bias)\n"
        "  layer/kernel  (weight)"
    )


@pytest.mark.parametrize("rule", ["Head/*", aj.path("*/weight"), aj.kind("scale")], ids=str)
def test_a_rule_that_picks_nothing_is_refused_with_the_paths_there_are(rule):
    with pytest.raises(ValueError) as caught:
        aj.partition({rule: aj.gd(0.1), "*": aj.gd(0.1)}).init(PARAMS)
    first, *listed = str(caught.value).splitlines()
    expected = aj.path(rule) if isinstance(rule, str) else rule
    assert first == f"{expected} matches no parameter; there are:"
    assert [line.split()[0] for line in listed] == list(by_path(PARAMS))


def test_a_rule_that_comes_too_late_is_refused():
    with pytest.raises(ValueError, match=r"^path\('head/\*'\) matches only what earlier rules"):
        aj.partition({"*": aj.gd(0.1), "head/*": aj.gd(0.2)}).init(PARAMS)


def test_a_rule_may_come_once():
    with pytest.raises(ValueError, match=r"^path\('head/\*'\) comes twice$"):
        aj.partition({"*": aj.gd(0.1), "head/*": aj.gd(0.1), aj.path("head/*"): aj.gd(0.2)})


def test_equal_rules_are_one_key():
    assert len({aj.path("a"), aj.path("a"), aj.kind("bias"), aj.kind("bias")}) == 2


@pytest.mark.parametrize("groups", [{}, None, [aj.gd(0.1)], aj.gd(0.1)], ids=repr)
def test_groups_are_a_mapping_with_something_in_it(groups):
    with pytest.raises(ValueError, match="partition needs a mapping") as caught:
        aj.partition(groups)
    assert str(caught.value).endswith(f"got {groups!r}")


@pytest.mark.parametrize("key", [1, None, ("a",), aj.decay_except()], ids=repr)
def test_keys_are_rules(key):
    with pytest.raises(ValueError, match="a rule is a path pattern") as caught:
        aj.partition({"*": aj.gd(0.1), key: aj.gd(0.1)})
    assert str(caught.value).endswith(f"got {key!r}")


@pytest.mark.parametrize("value", [0.1, None, "adam"], ids=str)
def test_values_are_transformations(value):
    with pytest.raises(ValueError, match="transformation"):
        aj.partition({"*": value}).init(PARAMS)


def test_kinds_need_names():
    tx = aj.partition({aj.kind("bias"): aj.gd(0.1), "*": aj.gd(0.1)})
    with pytest.raises(ValueError, match="at 0 has no name"):
        tx.init([jnp.ones(2), jnp.ones(2)])
    by_position = aj.partition({"0": aj.gd(0.1), "*": aj.gd(1.0)})
    updates, _ = by_position.update([jnp.ones(2), jnp.ones(2)], by_position.init([1.0, 1.0]))
    chex.assert_trees_all_close(updates, [jnp.full(2, -0.1), jnp.full(2, -1.0)])


def test_a_parameter_that_is_none_needs_no_group():
    params = {"kernel": jnp.ones(2), "frozen": None}
    updates, _ = walk(aj.partition({"kernel": decaying()}), params)
    chex.assert_trees_all_equal(updates, walk(decaying(), params)[0])


def test_a_parameter_without_a_gradient_keeps_its_group():
    gradients = gradients_like(PARAMS)
    gradients["head"] = {"kernel": None, "bias": None}
    tx = partition(GROUPS["strings and paths"])
    updates, _ = tx.update(gradients, tx.init(PARAMS), PARAMS)
    assert updates["head"] == {"kernel": None, "bias": None}


def test_a_subtree_without_gradients_keeps_its_group():
    tx = partition(GROUPS["strings and paths"])
    updates, _ = tx.update({**gradients_like(PARAMS), "head": None}, tx.init(PARAMS), PARAMS)
    assert updates["head"] is None


# Inside wrappers, and printed


def test_hyperparameters_of_the_groups_can_be_injected_around_them():
    def grouped(body_rate, head_rate, weight_decay):
        head = aj.adamw(head_rate, weight_decay=weight_decay)
        return aj.partition({"head/*": head, "*": aj.gd(body_rate)})

    numbers = {"body_rate": 0.1, "head_rate": 0.2, "weight_decay": 0.5}
    tx = optax.inject_hyperparams(grouped)(**numbers)
    ours, state = moving(tx, PARAMS)
    assert set(state.hyperparams) == set(numbers)
    chex.assert_trees_all_close(ours, moving(grouped(**numbers), PARAMS)[0], rtol=1e-5)
    # Changing a rate by hand reaches its group and no other, in the same compilation.
    chex.clear_trace_counter()
    update = jax.jit(chex.assert_max_traces(tx.update, 1))
    update(PARAMS, state, PARAMS)
    state.hyperparams["body_rate"] = jnp.zeros_like(state.hyperparams["body_rate"])
    updates = by_path(update(PARAMS, state, PARAMS)[0])
    assert {path for path, update in updates.items() if jnp.any(update != 0)} == HEAD


def test_multisteps_around_groups_takes_the_mean_gradient():
    tx = partition(GROUPS["kinds"])
    steps = in_two_steps(tx)
    state, gradients = steps.init(PARAMS), gradients_like(PARAMS)
    for share in 0.5, 1.5:
        part = jax.tree.map(lambda g, share=share: share * g, gradients)
        updates, state = steps.update(part, state, PARAMS)
    expected, _ = tx.update(gradients, tx.init(PARAMS), PARAMS)
    chex.assert_trees_all_close(updates, expected, rtol=1e-5)


def test_prints_as_the_call_that_makes_it():
    groups = {
        aj.kind("embedding"): aj.adam(0.1),
        "*/kernel": decaying(mask=aj.decay_except("head/*")),
        aj.path("*"): aj.partition({"*": aj.gd(0.1)}),
    }
    tx = aj.partition(groups)
    again = eval(repr(tx), vars(aj))
    assert repr(again) == repr(tx) and again.description.name == "partition"
    for part in "kind('embedding'):", "'*/kernel':", "path('*'):", "mask=decay_except(path('he":
        assert part in repr(tx)
    assert all(len(line) <= 80 for line in repr(tx).splitlines())
    chex.assert_trees_all_equal(walk(again, PARAMS), walk(tx, PARAMS))


# In real models

STEPS = 50
HEAD_RATE = optax.warmup_cosine_decay_schedule(0.0, 0.05, 5, STEPS)


def grouped():
    decay = {"weight_decay": 0.1, "mask": aj.decay_except()}
    return aj.partition(
        {
            aj.kind("embedding"): aj.adam(0.03),
            "head/*": aj.adamw(HEAD_RATE, **decay),
            "*": aj.adamw(0.02, **decay),
        }
    )


@pytest.mark.parametrize("model", [model for model in MODELS if "stacked" in model])
def test_every_model_learns_in_groups(model):
    network, tx = transformer(model), grouped()

    @jax.jit
    def run(params):
        def step(carry, _):
            params, state = carry
            loss, gradients = jax.value_and_grad(network.loss)(params)
            updates, state = tx.update(gradients, state, params)
            return (optax.apply_updates(params, updates), state), loss

        return jax.lax.scan(step, (params, tx.init(params)), length=STEPS)

    (params, _), losses = run(network.params)
    assert losses[-1] < 0.5 * losses[0]
    chex.assert_trees_all_equal_structs(params, network.params)


def test_an_nnx_optimizer_trains_in_groups_in_one_compilation():
    network = nnx_module(stacked=True)
    optimizer = nnx.Optimizer(network, grouped(), wrt=nnx.Param)
    chex.clear_trace_counter()

    @nnx.jit
    @chex.assert_max_traces(1)
    def step(network, optimizer):
        def loss(network):
            return loss_of(network(TOKENS[:, :-1]))

        value, gradients = nnx.value_and_grad(loss)(network)
        optimizer.update(network, gradients)
        return value

    losses = [float(step(network, optimizer)) for _ in range(STEPS)]
    assert losses[-1] < 0.5 * losses[0]


def test_a_linen_train_state_trains_in_groups():
    network = transformer("Linen stacked")
    state = TrainState.create(apply_fn=network.logits, params=network.params, tx=grouped())

    @jax.jit
    def step(state):
        loss, gradients = jax.value_and_grad(network.loss)(state.params)
        return state.apply_gradients(grads=gradients), loss

    losses = []
    for _ in range(STEPS):
        state, loss = step(state)
        losses.append(float(loss))
    assert losses[-1] < 0.5 * losses[0] and int(state.step) == STEPS
