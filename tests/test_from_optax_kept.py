"""States that were kept: by an earlier version, or in a checkpoint of Optax's."""

from typing import Any, NamedTuple

import chex
import flax
import optax
import orbax.checkpoint as ocp
import pytest
from crossing_over import PARAMS, WRAPPED, falling, refused, walk

import adamw_jax as aj
from adamw_jax.interchange import from_earlier_version, from_optax


# A development version kept Adam's state so.
class BiasCorrectionState(NamedTuple):
    count: Any


def test_a_state_that_a_development_version_nested_is_read():
    ours = aj.adamw(falling)
    now = walk(ours, 4)
    mu, nu, count = (optax.tree.get(now, name) for name in ("mu", "nu", "count"))
    before = (
        (
            (aj.MomentumState(mu), BiasCorrectionState(count)),
            (aj.SecondMomentState(nu), BiasCorrectionState(count)),
        ),
        optax.EmptyState(),
        BiasCorrectionState(count),
    )
    chex.assert_trees_all_equal(from_earlier_version(ours, PARAMS, before), now)


@pytest.mark.parametrize(
    "ours", [aj.adabelief(0.1), aj.amsgrad(0.1, max_before_correction=True), WRAPPED["chain"](aj)]
)
def test_what_an_earlier_version_remembered_means_the_same_wherever_it_stood(ours):
    now = walk(ours, 4)
    before = [[part] for part in reversed(now)]
    chex.assert_trees_all_equal(from_earlier_version(ours, PARAMS, before), now)
    without = [part for part in before if not hasattr(part[0], "mu")]
    refused(
        lambda: from_earlier_version(ours, PARAMS, without),
        "the earlier state does not fit this optimizer's:",
        "  only in this optimizer's state: mu/bias and 1 more of mu",
    )


def with_orbax(state, tmp_path):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        return checkpointer.restore(tmp_path / "state")


def with_flax(state, tmp_path):
    del tmp_path
    return flax.serialization.msgpack_restore(flax.serialization.to_bytes(state))


@pytest.mark.parametrize("restored", [with_orbax, with_flax])
@pytest.mark.parametrize("wrapper", ["chain", "partition", "inject_hyperparams"])
def test_a_checkpoint_can_be_read_without_optaxs_optimizer(restored, wrapper, tmp_path):
    ours, theirs = (WRAPPED[wrapper](lib) for lib in (aj, optax))
    state = walk(theirs, 3)
    plain = restored(state, tmp_path)
    chex.assert_trees_all_equal(from_optax(ours, PARAMS, plain), from_optax(ours, PARAMS, state))
