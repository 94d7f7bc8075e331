"""How moments are kept: rounded at random, and in 8 bits."""

import chex
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint
import pytest
from cases import gradients_like, walk
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import adamw_jax as aj
from adamw_jax import testing
from adamw_jax.encodings import blocks

EIGHT = aj.blockwise_quantization(7, min_size=1)
NEAREST = aj.blockwise_quantization(None, min_size=1)
MIXED = {"mu_dtype": EIGHT, "nu_dtype": aj.stochastic_rounding(7)}
EVERY = pytest.mark.parametrize("encoding", [aj.stochastic_rounding(7), EIGHT, NEAREST], ids=repr)


def kept(encoding, moment, *, signed=True, steps=1, name="m"):
    """What is kept of a moment after a step, for each of many steps."""
    start = encoding.start(jax.tree.map(jnp.zeros_like, moment), signed=signed)

    @jax.jit
    def run(step):
        return encoding.after_step(moment, start, name, step)

    return jax.vmap(run)(jnp.arange(steps)) if steps > 1 else run(jnp.int32(0))


def decoded(encoding, moment, **options):
    return encoding.decode(kept(encoding, moment, **options))


def amsgrad_in_few_bytes(seed, **numbers):
    encoding = aj.blockwise_quantization(seed, min_size=1)
    return aj.amsgrad(**numbers, mu_dtype=aj.stochastic_rounding(seed), nu_dtype=encoding)


def nadamw_in_few_bytes(seed, **numbers):
    encoding = aj.blockwise_quantization(seed, min_size=1)
    return aj.nadamw(**numbers, mu_dtype=encoding, nu_dtype=aj.stochastic_rounding(seed))


LAWFUL = {
    amsgrad_in_few_bytes: {"learning_rate": 0.02, "b2": 0.99, "eps": 1e-6, "seed": 7},
    nadamw_in_few_bytes: {"learning_rate": 0.02, "weight_decay": 0.1, "seed": 7},
}


@pytest.mark.parametrize("law", testing.LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("make", LAWFUL, ids=lambda make: make.__name__)
def test_pieces_obey_every_law_with_an_encoding(make, law, monkeypatch):
    params = testing.mixed_params() | {"complex64": None}
    monkeypatch.setattr(testing, "mixed_params", lambda: params)
    law(make, LAWFUL[make])


def test_a_dtype_that_is_the_default_changes_nothing():
    params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
    plain = walk(aj.adamw(0.1), params)
    chex.assert_trees_all_equal(
        plain, walk(aj.adamw(0.1, mu_dtype="float32", nu_dtype="float32"), params)
    )
    kinds = [type(part) for part in plain[1]]
    assert kinds == [aj.MomentumState, aj.StepsState, aj.SecondMomentState]


@pytest.mark.parametrize("encoding", [aj.stochastic_rounding(7), EIGHT], ids=repr)
@pytest.mark.parametrize("signed", [True, False])
def test_rounding_is_unbiased(encoding, signed):
    draw = np.random.default_rng(0)
    x = 10 ** draw.uniform(-3, 0, 500)
    x = jnp.float32(x * draw.choice([-1, 1], 500) if signed else x**2)
    rounds = 4000
    values = np.asarray(decoded(encoding, x, signed=signed, steps=rounds), np.float64)
    gap = np.ptp(values, axis=0)  # it takes the number above or the one below
    assert max(len(set(column)) for column in values.T) == 2 and (gap > 0).mean() > 0.95
    errors = (values.mean(axis=0) - np.float64(x))[gap > 0] / gap[gap > 0]
    # The standard deviation of a mean is at most half a gap over the root of the number of rounds.
    deviation = 0.5 / np.sqrt(rounds)
    assert np.abs(errors).max() < 5 * deviation
    assert np.abs(errors.mean()) < 5 * deviation / np.sqrt(errors.size)


@EVERY
def test_what_has_been_kept_is_kept_as_it_is(encoding):
    x = decoded(encoding, jnp.float32(np.random.default_rng(0).normal(size=(5, 40))))
    chex.assert_trees_all_close(decoded(encoding, x), x, rtol=1e-6)


def test_the_bits_depend_on_seed_step_path_and_moment_and_on_nothing_else():
    x = jnp.float32(np.random.default_rng(0).normal(size=200))
    encoding = aj.stochastic_rounding(1)
    plain = kept(encoding, {"a": x})["a"]
    chex.assert_trees_all_equal(kept(encoding, {"a": x, "0": x})["a"], plain)
    others = [
        kept(encoding, {"a": x, "b": x})["b"],
        kept(encoding, {"a": x}, name="v")["a"],
        kept(aj.stochastic_rounding(2), {"a": x})["a"],
        kept(encoding, {"a": x}, steps=2)["a"][1],
    ]
    for other in others:
        assert 0.2 < (other != plain).mean() < 0.5


@pytest.mark.parametrize("make", [aj.stochastic_rounding, aj.blockwise_quantization])
def test_a_lane_with_its_seed_gives_the_bits_of_a_run_alone(make):
    params = {"kernel": jnp.float32(np.random.default_rng(0).normal(size=(64, 65)))}

    @jax.jit
    def run(seed):
        encoding = make(seed)
        return walk(aj.adamw(0.1, mu_dtype=encoding, nu_dtype=encoding), params)

    seeds = jnp.uint32([3, 4, 2**32 - 1])
    lanes = jax.vmap(run)(seeds)
    for i, seed in enumerate(seeds):
        chex.assert_trees_all_equal(jax.tree.map(lambda x, i=i: x[i], lanes), run(seed))
    first, second = (jax.tree.map(lambda x, i=i: x[i], lanes[1]) for i in range(2))
    assert jax.tree.leaves(first)[1].shape == (64, 65)
    assert (jax.tree.leaves(first)[1] != jax.tree.leaves(second)[1]).mean() > 0.1


@pytest.mark.parametrize("b2", [0.99, 0.999])
def test_a_second_moment_follows_its_gradients_up_and_down(b2):
    # Half the gradients fall to a tenth; their v must follow, although the block's largest stays.
    steps = int(8 / (1 - b2))
    falling = jnp.arange(256) % 2 == 1

    def v(encoding):
        tx = aj.second_moment(b2, accumulator_dtype=encoding)

        def step(state, t):
            g = jnp.where(falling & (t > steps // 2), 0.1, 1.0)
            v, state = tx.update(g, state)
            return state, v

        start = tx.init(jnp.zeros(256))
        return jax.jit(lambda s: jax.lax.scan(step, s, jnp.arange(steps))[1][-1])(start)

    exact = np.asarray(v(None), np.float64)
    for encoding in aj.stochastic_rounding(1), aj.blockwise_quantization(1, min_size=1):
        for part in exact < 0.5, exact > 0.5:
            assert np.mean(v(encoding)[part]) == pytest.approx(exact[part].mean(), rel=0.1)
            assert np.std(v(encoding)[part]) < 0.5 * exact[part].mean()
    for stalling in "bfloat16", NEAREST:
        assert np.abs(v(stalling) / exact - 1).max() > 0.15


@pytest.mark.parametrize("encoding", [EIGHT, NEAREST], ids=repr)
def test_a_ratio_of_8_bit_moments_is_never_far_too_large(encoding):
    # |m| ≤ share·√v, for sizes that differ by up to 36 orders of magnitude in a block.
    draw = np.random.default_rng(0)
    lowest, share = draw.uniform(-18, 18, (500, 1)), 10 ** draw.uniform(-3, 1, (500, 1))
    root = 10 ** draw.uniform(lowest, 18, (500, 128))
    m, v = jnp.float32(share * draw.uniform(-1, 1, root.shape) * root), jnp.float32(root**2)
    kept_m, kept_v = decoded(encoding, m), decoded(encoding, v, signed=False)
    assert (kept_v[v > 0] > 0).all() and (kept_m == 0).any()
    ratio = np.abs(np.float64(kept_m)) / np.sqrt(np.maximum(np.float64(kept_v), 1e-300))
    assert (ratio[v > 0] <= np.broadcast_to(2.2 * share, ratio.shape)[v > 0]).all()


@pytest.mark.parametrize("encoding", [EIGHT, NEAREST], ids=repr)
def test_no_step_explodes_where_sizes_differ_in_a_block(encoding):
    draw = np.random.default_rng(0)
    scale = 10 ** draw.uniform(-12, 0, 256)
    gradients = jnp.float32(scale * draw.normal(size=(300, 256)) * (draw.random((300, 256)) < 0.1))

    def largest(kept_in):
        tx = aj.scale_by_adam(eps=1e-30, mu_dtype=kept_in, nu_dtype=kept_in)
        step = jax.jit(lambda s, g: tx.update(g, s)[::-1])
        return jnp.abs(jax.lax.scan(step, tx.init(gradients[0]), gradients)[1]).max()

    assert largest(encoding) < 2 * largest(None)


SHAPES = [(), (0,), (1,), (7,), (131,), (3, 50), (5, 3, 43), (4, 1), (2, 0, 3), (3, 3, 8, 64)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("signed", [True, False])
def test_every_shape_is_kept_within_a_code(shape, signed):
    x = np.random.default_rng(0).normal(size=shape)
    x = jnp.float32(x if signed else x**2)
    state = kept(NEAREST, x, signed=signed)
    assert state.codes.shape == shape and state.codes.ndim == state.scales.ndim
    if x.size:
        assert state.codes.dtype == (jnp.int8 if signed else jnp.uint8)
        assert state.scales.size <= max(1, x.size / 43)
    value = NEAREST.decode(state)
    assert value.shape == shape
    power, levels, offset = (4, 126, 7) if signed else (8, 253, 15)
    # The distance of two codes is at most this much at a number.
    share = np.abs(x) / (np.abs(x).max() if x.size else 1)
    root = np.maximum(share ** (1 / power) * (levels + offset), offset + 1)
    gap = np.abs(x) * ((1 + 1 / root) ** power - 1) + 1e-5**power
    np.testing.assert_array_less(np.abs(value - x), 0.6 * gap + 1e-6)


def test_blocks_take_whole_axes_from_the_last_one_on():
    shapes = {
        (784, 256): (1, 128),
        (3, 3, 32, 64): (1, 1, 2, 64),
        (10000, 100): (1, 100),
        (4096, 10): (8, 10),
        (784,): (112,),
        (131,): (128,),
        (): (),
    }
    assert {shape: blocks.shape_of_block(shape) for shape in shapes} == shapes


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@EVERY
def test_what_is_not_finite_stays_so_and_leaves_its_neighbours_alone(encoding, bad):
    x = jnp.float32([1.0, 0.5, -0.25, 0.125, 3e-3])
    value = decoded(encoding, x.at[1].set(bad))
    value = np.float32(value)
    np.testing.assert_array_equal(value[1], np.float32(bad))
    np.testing.assert_allclose(np.delete(value, 1), np.delete(x, 1), rtol=0.3)


@EVERY
def test_a_gradient_whose_square_overflows_stops_that_parameter_alone(encoding):
    tx = aj.adam(1e-3, mu_dtype=encoding, nu_dtype=encoding)
    state = tx.init(jnp.ones(4))
    for g in [1e30] + 20 * [1e-2]:
        updates, state = tx.update(jnp.full(4, 1e-2).at[0].set(g), state)
    assert updates[0] == 0 and (updates[1:] < 0).all()


def test_blocks_of_zeros_stay_zeros():
    params = {"w": jnp.ones((2, 128))}
    tx = aj.adamw(0.1, weight_decay=0.0, mu_dtype=EIGHT, nu_dtype=EIGHT)
    gradient = {"w": jnp.zeros((2, 128)).at[1].set(1.0)}
    state = tx.init(params)
    for _ in range(3):
        updates, state = tx.update(gradient, state, params)
    assert (updates["w"][0] == 0).all() and (updates["w"][1] < 0).all()


@EVERY
def test_complex_parameters_are_refused_by_their_path(encoding):
    params = {"layer": {"kernel": jnp.complex64([1j]), "bias": jnp.ones(1)}}
    with pytest.raises(ValueError, match=r"complex: \['layer'\]\['kernel'\]\."):
        aj.momentum(0.9, accumulator_dtype=encoding).init(params)
    aj.second_moment(0.9, accumulator_dtype=encoding).init(params)  # it is real


@pytest.mark.parametrize("seed", [-1, 1.5, 2**32, float("nan"), "1", jnp.ones(2)])
def test_seeds_are_checked(seed):
    for make in aj.stochastic_rounding, aj.blockwise_quantization:
        with pytest.raises(ValueError, match="seed must be"):
            make(seed)


def test_what_is_neither_a_dtype_nor_an_encoding_is_refused_by_its_name():
    for wrong in ("int8", aj.stochastic_rounding, 8):
        with pytest.raises(ValueError, match="nu_dtype must be .* or an encoding"):
            aj.adamw(0.1, nu_dtype=wrong)
    with pytest.raises(ValueError, match="real"):
        aj.second_moment(0.9, accumulator_dtype=jnp.complex64).init(jnp.ones(2))


def test_equal_encodings_make_equal_pieces_and_print_as_their_call():
    def tx(seed):
        return aj.adabelief(0.1, mu_dtype=aj.stochastic_rounding(seed), nu_dtype=EIGHT)

    text = repr(tx(3))
    assert "momentum(0.9, accumulator_dtype=stochastic_rounding(seed=3))" in text
    assert "accumulator_dtype=blockwise_quantization(seed=7, min_size=1)" in text
    assert repr(eval(text, vars(aj))) == text
    assert repr(aj.blockwise_quantization()) == "blockwise_quantization()"
    params = {"w": jnp.ones((2, 3))}
    assert len(tx(3).init(params)) == 3  # one count, one m, which AdaBelief uses twice, one s
    assert str(aj.equations(tx(3))) == str(aj.equations(aj.adabelief(0.1)))
    values = [aj.inner_values(t, 1.0, lambda x: 2 * x, steps=5) for t in (tx(3), aj.adabelief(0.1))]
    assert list(values[0].columns) == list(values[1].columns)
    np.testing.assert_allclose(values[0]["m̂"], values[1]["m̂"], rtol=0.1)


PARAMS = {
    "kernel": jnp.float32(np.random.default_rng(0).normal(size=(64, 65))),
    "bias": jnp.ones(3),
}
MEMBERS = {
    "chain": lambda tx: optax.chain(optax.clip_by_global_norm(1.0), tx),
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 3),
    "masked": lambda tx: optax.masked(tx, {"kernel": True, "bias": False}),
    "partition": lambda tx: aj.partition({"kernel": tx, "*": aj.gd(0.1)}),
}


@pytest.mark.parametrize("wrap", MEMBERS.values(), ids=MEMBERS)
def test_wrappers_work_as_with_float32(wrap):
    (ours, _), (exact, _) = (
        walk(wrap(tx), PARAMS, steps=4) for tx in (aj.adamw(0.1, **MIXED), aj.adamw(0.1))
    )
    chex.assert_trees_all_close(ours, exact, rtol=0.2, atol=0.02)


def test_hyperparameters_can_be_injected_beside_encodings():
    tx = optax.inject_hyperparams(aj.adamw)(0.1, **MIXED)
    chex.assert_trees_all_close(
        walk(tx, PARAMS)[0], walk(aj.adamw(0.1, **MIXED), PARAMS)[0], rtol=1e-2
    )


def test_checkpoints_resume_bit_for_bit(tmp_path):
    tx = aj.adamw(0.1, **MIXED)
    _, state = walk(tx, PARAMS)
    blank = jax.tree.map(jnp.zeros_like, state)
    from_flax = flax.serialization.from_bytes(blank, flax.serialization.to_bytes(state))
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        from_orbax = checkpointer.restore(tmp_path / "state", blank)
    expected = tx.update(gradients_like(PARAMS), state, PARAMS)
    for restored in from_flax, from_orbax:
        restored = jax.tree.map(jnp.asarray, restored)
        chex.assert_trees_all_equal(tx.update(gradients_like(PARAMS), restored, PARAMS), expected)


def test_a_step_can_be_exported():
    tx = aj.adamw(0.1, **MIXED)
    state = tx.init(PARAMS)
    aj.register_for_export(state)
    step = jax.jit(tx.update)
    blob = jax.export.export(step)(PARAMS, state, PARAMS).serialize()
    again = jax.export.deserialize(bytearray(blob)).call
    chex.assert_trees_all_equal(again(PARAMS, state, PARAMS), step(PARAMS, state, PARAMS))


def test_map_params_gives_codes_and_scales_the_sharding_of_their_parameter():
    tx = aj.adamw(0.1, **MIXED)
    specs = {"kernel": "rows", "bias": "replicated"}
    mapped = optax.tree.map_params(tx, lambda _, spec: spec, tx.init(PARAMS), specs)
    assert optax.tree.get(mapped, "mu") == aj.Quantized(specs, specs)
    assert optax.tree.get(mapped, "nu") == specs


def test_a_quantized_moment_can_be_read():
    _, state = walk(aj.adamw(0.1, mu_dtype=EIGHT), PARAMS)
    _, exact = walk(aj.adamw(0.1), PARAMS)
    mu = optax.tree.get(state, "mu")
    assert mu.codes["kernel"].dtype == jnp.int8
    chex.assert_trees_all_close(mu.decode(), optax.tree.get(exact, "mu"), rtol=0.3, atol=0.02)


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit], ids=str)
@pytest.mark.parametrize("spec", [("x",), (None, "x")], ids=str)
def test_codes_and_scales_are_sharded_as_the_parameter(spec, axis_type):
    mesh = jax.make_mesh((4,), ("x",), axis_types=(axis_type,))
    sharding = NamedSharding(mesh, PartitionSpec(*spec))
    alone = {"w": PARAMS["kernel"][:, :64].repeat(8, axis=1)}
    params = jax.device_put(alone, sharding)
    tx = aj.adamw(0.1, mu_dtype=EIGHT, nu_dtype=aj.stochastic_rounding())
    state = tx.init(params)
    updates, after = jax.jit(tx.update)(params, state, params)
    expected = jax.jit(tx.update)(alone, tx.init(alone), alone)
    chex.assert_trees_all_equal(jax.device_get((updates, after)), jax.device_get(expected))
    for moments in state, after:
        for x in jax.tree.leaves(moments):
            assert not x.ndim or x.sharding.is_equivalent_to(sharding, 2), x.sharding
