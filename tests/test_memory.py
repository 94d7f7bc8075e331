"""What the state of an optimizer takes, before it is allocated."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import adamw_jax as aj

EIGHT = aj.blockwise_quantization()
TX = {
    "adamw": aj.adamw(1e-3),
    "8 bits": aj.adamw(1e-3, mu_dtype=EIGHT, nu_dtype=EIGHT),
    "groups": aj.partition({"*bias": aj.lion(1e-3), "*": aj.amsgrad(1e-3)}),
    "Optax": optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3)),
    "master": aj.with_master_weights(aj.adamw(1e-3)),
}
PARAMS = {"layer": {"kernel": jnp.ones((64, 80)), "bias": jnp.ones(80, jnp.bfloat16)}}


@pytest.mark.parametrize("tx", TX.values(), ids=TX)
def test_the_report_counts_the_bytes_that_the_state_then_takes(tx):
    report = aj.memory_report(tx, jax.eval_shape(lambda: PARAMS))
    assert report.bytes == sum(x.nbytes for x in jax.tree.leaves(tx.init(PARAMS)))
    assert report.parameters == 65 * 80


def test_a_part_is_a_tree_like_the_parameters():
    report = aj.memory_report(TX["8 bits"], PARAMS)
    assert [row.part for row in report.rows] == [
        "state[0].count",
        "state[1].mu.codes",
        "state[1].mu.scales",
        "state[2].nu.codes",
        "state[2].nu.scales",
    ]
    assert report.rows[1] == ("state[1].mu.codes", ("int8", "float32"), 5200, 5120 + 320)
    lines = str(report).splitlines()
    assert lines[0].split()[-3:] == ["bytes", "per", "parameter"]
    assert lines[-1].split()[0] == "all" and f"{report.bytes:,}" in lines[-1]


def test_parts_of_groups_are_separate():
    parts = [row.part for row in aj.memory_report(TX["groups"], PARAMS).rows]
    assert len(parts) == len(set(parts)) == 5  # m of one group; m, v, its maximum, count of another


def test_eight_bits_take_at_most_2_2_bytes_a_parameter_on_a_real_model():
    def convolutional():
        rngs = nnx.Rngs(0)
        layers = [nnx.Conv(3, 48, (3, 3), rngs=rngs), nnx.BatchNorm(48, rngs=rngs)]
        layers += [nnx.Conv(48, 96, (3, 3), rngs=rngs), nnx.Linear(1000, 100, rngs=rngs)]
        return nnx.state(nnx.List(layers), nnx.Param)

    def transformer():
        rngs = nnx.Rngs(0)
        attention = nnx.MultiHeadAttention(6, 384, decode=False, rngs=rngs)
        parts = [nnx.Embed(5000, 384, rngs=rngs), attention, nnx.LayerNorm(384, rngs=rngs)]
        return nnx.state(nnx.List([*parts, nnx.Linear(384, 1536, rngs=rngs)]), nnx.Param)

    for model in convolutional, transformer:
        params = jax.eval_shape(model)
        report = aj.memory_report(TX["8 bits"], params)
        assert 2 < report.bytes / report.parameters < 2.2
        exact = aj.memory_report(TX["adamw"], params)
        assert exact.bytes / exact.parameters == pytest.approx(8, abs=1e-3)


def test_nothing_is_allocated_and_an_empty_tree_is_reported():
    shape = jax.ShapeDtypeStruct((10**9, 10**3), jnp.float32)
    assert aj.memory_report(TX["8 bits"], {"w": shape}).bytes > 10**12
    assert np.isnan(float(str(aj.memory_report(aj.adam(0.1), {})).split()[-1]))
