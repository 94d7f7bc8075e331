"""What is refused of PyTorch's states, with all that is said."""

import jax
import optax
import pytest
from crossing_over import (
    NAMES,
    adamw_in_the_middle,  # noqa: F401  a fixture
    arrays_of,
    of_flax,
    pytorch,  # noqa: F401  a fixture
    refused,
    to_flax,
    trained,
)
from test_peers import RATE

import adamw_jax as aj
from adamw_jax.interchange import from_torch, to_torch


def test_hyperparameters_that_differ_are_refused(adamw, torch):
    _, params, theirs = adamw
    state_dict = theirs.state_dict()
    head = "PyTorch's hyperparameters are not this optimizer's:"
    tail = "If that is intended, pass check_hyperparameters=False"
    for ours, *lines in [
        (
            aj.adamw(0.02, b1=0.8, b2=0.99, eps=1e-6, weight_decay=0.01),
            "  lr is 0.01 there and 0.02 here",
            "  eps is 1e-08 there and 1e-06 here",
            "  betas[0] is 0.9 there and 0.8 here",
            "  betas[1] is 0.999 there and 0.99 here",
        ),
        (
            aj.adam_l2(RATE, l2=0.01),
            "  weight_decay (decoupled) is 0.01 there and not set here",
        ),
    ]:
        refused(
            lambda ours=ours: from_torch(ours, params, state_dict, to_flax, NAMES),
            head,
            *lines,
            tail,
        )
        state = from_torch(ours, params, state_dict, to_flax, NAMES, check_hyperparameters=False)
        refused(
            lambda ours=ours, state=state: to_torch(ours, params, state, theirs, of_flax, NAMES),
            head,
            *lines,
            tail,
        )
    # A schedule is not compared, nor what the groups do not say.
    from_torch(aj.adamw(lambda step: 0.5, weight_decay=0.01), params, state_dict, to_flax, NAMES)


def test_an_old_adamw_does_not_say_that_its_decay_is_decoupled(adamw):
    ours, params, theirs = adamw
    old = theirs.state_dict()
    del old["param_groups"][0]["decoupled_weight_decay"]
    from_torch(ours, params, old, to_flax, NAMES)
    refused(
        lambda: from_torch(aj.adam(RATE), params, old, to_flax, NAMES),
        "PyTorch's hyperparameters are not this optimizer's:",
        "  weight_decay is 0.01 there and not set here",
        "If that is intended, pass check_hyperparameters=False",
    )


def test_moments_that_are_missing_left_over_or_in_another_layout_are_refused(adamw, torch):
    ours, params, theirs = adamw
    state_dict = theirs.state_dict()
    state = from_torch(ours, params, state_dict, to_flax, NAMES)
    head = "PyTorch's state does not fit this optimizer's:"

    def untransposed(arrays):
        tree = to_flax(arrays)
        return tree | {"Dense_0": tree["Dense_0"] | {"kernel": arrays["3.weight"]}}

    refused(
        lambda: from_torch(ours, params, state_dict, untransposed, NAMES),
        head,
        "  shapes [1, 4] and [4, 1]: mu/Dense_0/kernel, nu/Dense_0/kernel",
    )
    refused(
        lambda: from_torch(
            ours, params, state_dict, lambda a: {"Dense": to_flax(a)["Dense_0"]}, NAMES
        ),
        head,
        "  only in PyTorch's state: mu/Dense/bias and 1 more of mu, nu/Dense/bias and 1 more of nu",
        "  only in this optimizer's state: mu/Conv_0/bias and 3 more of mu, "
        "nu/Conv_0/bias and 3 more of nu",
    )
    refused(
        lambda: to_torch(ours, params, state, theirs, lambda t: {"x": t["Conv_0"]["bias"]}, NAMES),
        "this optimizer's state does not fit PyTorch's:",
        "  only in this optimizer's state: mu/x, nu/x",
        "  only in PyTorch's state: mu/0.weight and 3 more of mu, nu/0.weight and 3 more of nu",
    )
    state_dict["state"][2]["step"] = torch.tensor(2.0)
    refused(
        lambda: from_torch(ours, params, state_dict, to_flax, NAMES),
        "PyTorch's state counts 3 steps of 0.weight and 2 of 3.weight, and a whole optimizer has "
        "one count",
    )
    refused(
        lambda: from_torch(ours, params, state_dict, to_flax, NAMES[1:]),
        "3 names for the 4 parameters of PyTorch's optimizer: pass names in the order in which it "
        "got the parameters",
    )


@pytest.mark.parametrize(
    ("kind", "arguments", "ours", "theirs_alone", "ours_alone"),
    [
        # The maximum is of v, and ours is of v̂ unless told.
        ("Adam", {"amsgrad": True}, aj.amsgrad(RATE), "nu_max (max_before_correction)", "nu_max"),
        ("Adamax", {}, aj.adam(RATE), "largest gradient", "nu"),
        ("Adam", {}, aj.adamax(RATE), "nu", "largest gradient"),
        ("RMSprop", {"centered": True}, aj.rmsprop(RATE, 0.99), "grad_avg", None),
        ("SGD", {"momentum": 0.9}, aj.momentum_gd(RATE), "trace", "mu"),
        (
            "SGD",
            {"momentum": 0.9, "dampening": 0.5},
            aj.momentum_gd(RATE),
            "momentum_buffer with dampening=0.5",
            "mu",
        ),
        ("Adagrad", {"eps": 1e-8}, aj.rmsprop(RATE), "sum", "nu"),
    ],
)
def test_what_one_name_does_not_make_the_same_is_refused(
    torch, kind, arguments, ours, theirs_alone, ours_alone
):
    with jax.enable_x64(True):
        module, theirs = trained(torch, kind, **arguments)
        params = to_flax(arrays_of(module))
        with pytest.raises(ValueError) as caught:
            from_torch(ours, params, theirs.state_dict(), to_flax, NAMES)
        lines = str(caught.value).splitlines()
        assert lines[1].startswith(f"  only in PyTorch's state: {theirs_alone}/")
        if ours_alone:
            assert lines[2].startswith(f"  only in this optimizer's state: {ours_alone}/")


def test_steps_that_pytorch_does_not_count_must_be_given(torch):
    with jax.enable_x64(True):
        module, theirs = trained(torch, "SGD", momentum=0.9)
        params = to_flax(arrays_of(module))
        ours = aj.heavy_ball_gd(lambda step: RATE / (step + 1))
        refused(
            lambda: from_torch(ours, params, theirs.state_dict(), to_flax, NAMES),
            "PyTorch's state does not fit this optimizer's:",
            "  only in this optimizer's state: count",
            "  if you know how many steps were taken, pass count=",
        )
        state = from_torch(ours, params, theirs.state_dict(), to_flax, NAMES, count=3)
        assert optax.tree.get(state, "count") == 3
        module, theirs = trained(torch, "Adam")
        refused(
            lambda: from_torch(aj.adam(RATE), params, theirs.state_dict(), to_flax, NAMES, count=4),
            "count is 4, and PyTorch's state counts 3 steps",
        )
