"""What is refused of Optax's states, with all that is said."""

import chex
import jax
import jax.numpy as jnp
import optax
import pytest
from crossing_over import MASK, PARAMS, falling, refused, walk

import adamw_jax as aj
from adamw_jax.interchange import from_optax, to_optax


def test_moments_that_are_missing_or_left_over_are_refused():
    adam, ball = aj.adam(0.1), aj.heavy_ball_gd(0.1)
    refused(
        lambda: from_optax(ball, PARAMS, walk(optax.adamw(0.1), 2)),
        "Optax's state does not fit this optimizer's:",
        "  only in Optax's state: mu/bias and 1 more of mu, nu/bias and 1 more of nu",
        "  only in this optimizer's state: trace/bias and 1 more of trace",
    )
    refused(
        lambda: to_optax(adam, PARAMS, walk(adam, 2), optax.amsgrad(0.1)),
        "this optimizer's state does not fit Optax's:",
        "  only in Optax's state: nu_max/bias and 1 more of nu_max",
    )
    masked = walk(optax.masked(optax.adam(0.1), MASK), 2)
    refused(
        lambda: from_optax(adam, PARAMS, masked),
        "Optax's state does not fit this optimizer's:",
        "  only in this optimizer's state: mu/bias, nu/bias",
    )
    wrapped = walk(optax.MultiSteps(optax.adam(0.1), 2), 2)
    with pytest.raises(ValueError, match="only in Optax's state: mini_step, gradient_step, inner"):
        from_optax(adam, PARAMS, wrapped)
    from_optax(adam, PARAMS, wrapped.inner_opt_state)


def test_other_shapes_are_refused():
    state = walk(optax.adam(0.1), 2)
    other = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(3)}
    refused(
        lambda: from_optax(aj.adam(0.1), other, state),
        "Optax's state does not fit this optimizer's:",
        "  shapes [2, 3] and [3, 2]: mu/kernel, nu/kernel",
    )
    lanes = jax.vmap(lambda params: optax.adam(0.1).init(params))(
        jax.tree.map(lambda x: x[None], PARAMS)
    )
    refused(
        lambda: from_optax(aj.adam(0.1), PARAMS, lanes),
        "Optax's state does not fit this optimizer's:",
        "  shapes [1, 3] and [3]: mu/bias, nu/bias",
        "  shapes [1, 2, 3] and [2, 3]: mu/kernel, nu/kernel",
        "  shapes [1] and []: count",
    )


def test_counts_that_disagree_and_moments_that_are_there_twice_are_refused():
    adam, schedule = walk(optax.adam(falling), 3)
    late = adam, schedule._replace(count=jnp.int32(2))
    ours = aj.adam(falling)
    refused(
        lambda: from_optax(ours, PARAMS, late),
        "Optax's state counts 3 steps in one place and 2 in another, and a whole optimizer has "
        "one count",
    )
    refused(
        lambda: from_optax(ours, PARAMS, (adam, adam)),
        "Optax's state has mu/bias twice: it cannot be told which is which",
    )
    refused(
        lambda: from_optax(ours, PARAMS, (adam, schedule), count=4),
        "count is 4, and Optax's state counts 3 steps",
    )


def test_steps_that_one_of_them_does_not_count_must_be_given():
    ours, theirs = aj.lion(0.1), optax.lion(0.1)
    state = walk(theirs, 3)
    taken_over = from_optax(ours, PARAMS, state)
    refused(
        lambda: to_optax(ours, PARAMS, taken_over, theirs),
        "this optimizer's state does not fit Optax's:",
        "  only in Optax's state: count",
        "  if you know how many steps were taken, pass count=",
    )
    chex.assert_trees_all_equal(to_optax(ours, PARAMS, taken_over, theirs, count=3), state)


def test_the_maximum_of_amsgrad_is_after_the_correction_in_optax():
    before, after = (aj.amsgrad(0.1, max_before_correction=b) for b in (True, False))
    theirs = optax.amsgrad(0.1)
    name = "nu_max (max_before_correction)"
    refused(
        lambda: from_optax(before, PARAMS, walk(theirs, 2)),
        "Optax's state does not fit this optimizer's:",
        "  only in Optax's state: nu_max/bias and 1 more of nu_max",
        f"  only in this optimizer's state: {name}/bias and 1 more of {name}",
    )
    hidden = optax.chain(optax.clip(1.0), after)
    refused(
        lambda: from_optax(hidden, PARAMS, walk(theirs, 2)),
        "whether nu_max/bias is the maximum before or after the bias correction cannot be seen in "
        f"{hidden!r}: convert the state of the optimizer inside",
    )
    both = aj.partition({"kernel": before, "*": after})
    with pytest.raises(ValueError, match="cannot be seen in partition"):
        to_optax(both, PARAMS, walk(both, 2), theirs)


def test_adabelief_in_a_partition_is_refused():
    ours = aj.partition({"kernel": aj.adabelief(0.1), "*": aj.adam(0.1)})
    with pytest.raises(ValueError, match="convert each group's state with its own optimizer"):
        to_optax(ours, PARAMS, walk(ours, 2), optax.adam(0.1))
