"""Runs that begin in PyTorch and go on here, and the other way round."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from crossing_over import (
    BATCHES,
    FIRST,
    HALF,
    NAMES,
    SECOND,
    adamw_in_the_middle,  # noqa: F401  a fixture
    arrays_of,
    distance,
    module_of,
    of_flax,
    pytorch,  # noqa: F401  a fixture
    refused,
    run_torch,
    step,
    to_flax,
    trained,
)
from test_peers import DECAY, L2, OURS, PEERS, RATE, THEIRS

import adamw_jax as aj
from adamw_jax.interchange import from_torch, to_torch

DAMPED = {"lr": RATE, "momentum": 0.8, "dampening": 0.8}
WITH_MOMENTUM = aj.chain(
    aj.parallel(aj.chain(), aj.second_moment(0.95), merge=aj.rms_ratio(1e-6)),
    aj.heavy_ball(0.8),
    aj.scale_by_learning_rate(RATE),
)
CASES = PEERS | {
    "gd": (aj.gd(RATE), "SGD", {"lr": RATE}),
    "gd with L2": (aj.chain(aj.l2_regularization(DECAY), aj.gd(RATE)), "SGD", {"lr": RATE} | L2),
    "momentum_gd": (aj.momentum_gd(RATE, 0.8), "SGD", DAMPED),
    "rmsprop with momentum": (
        WITH_MOMENTUM,
        "RMSprop",
        {"lr": RATE, "alpha": 0.95, "eps": 1e-6, "momentum": 0.8},
    ),
    "adam": (aj.adam(**OURS), "Adam", THEIRS),
    "adam_l2": (aj.adam_l2(**OURS, l2=DECAY), "Adam", THEIRS | L2),
    "adamw": (aj.adamw(**OURS, **L2), "AdamW", THEIRS | L2),
}
# PyTorch's decay is multiplied by the learning rate.
ANOTHER_CONVENTION = {name for name in CASES if "per step" in name or "decoupled" in name}
# PyTorch keeps NAdam's product of the b1 in float32.
TOLERANCES = {"nadam": 1e-6, "nadamw": 1e-6}


class Network(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3), padding="VALID", param_dtype=x.dtype)(x)
        return nn.Dense(1, param_dtype=x.dtype)(jnp.tanh(x).mean((1, 2)))


@jax.jit
@jax.grad
def gradient(params, x):
    wanted = jnp.sin(x.sum((1, 2)))
    return jnp.mean((Network().apply({"params": params}, x) - wanted) ** 2)


def run(tx, params, state, steps):
    for t in steps:
        params, state = step(tx, params, state, gradient(params, jnp.asarray(BATCHES[t])))
    return params, state


def loaded(torch, module, arrays):
    with torch.no_grad():
        for name, p in module.named_parameters():
            p.copy_(torch.from_numpy(np.array(arrays[name])))
    return module


@pytest.mark.parametrize("name", CASES)
def test_a_run_crosses_over_and_lands_where_it_would_have_landed(torch, name):
    ours, kind, arguments = CASES[name]
    options = {"names": NAMES, "check_hyperparameters": name not in ANOTHER_CONVENTION}
    schedule = arguments.get("schedule", lambda step: 1.0)
    arguments = {key: value for key, value in arguments.items() if key != "schedule"}
    tolerance = TOLERANCES.get(name, 1e-12)

    def optimizer_of(module):
        return getattr(torch.optim, kind)(module.parameters(), **arguments)

    with jax.enable_x64(True):
        # From PyTorch …
        module = module_of(torch)
        start = to_flax(arrays_of(module))
        theirs = optimizer_of(module)
        run_torch(torch, module, theirs, FIRST, schedule)
        middle = jax.tree.map(jnp.asarray, to_flax(arrays_of(module)))
        state = from_torch(ours, middle, theirs.state_dict(), to_flax, **options)
        chex.assert_trees_all_equal_structs(state, ours.init(middle))
        again = to_torch(ours, middle, state, theirs, of_flax, count=HALF, **options)
        check_same(torch, again, theirs.state_dict())
        run_torch(torch, module, theirs, SECOND, schedule)
        expected = to_flax(arrays_of(module))
        assert distance(run(ours, middle, state, SECOND)[0], expected) <= tolerance

        # … and back.
        middle, state = run(ours, jax.tree.map(jnp.asarray, start), ours.init(start), FIRST)
        expected, _ = run(ours, middle, state, SECOND)
        module = loaded(torch, module_of(torch), of_flax(middle))
        theirs = optimizer_of(module)
        taken_over = to_torch(ours, middle, state, theirs, of_flax, count=HALF, **options)
        assert theirs.state_dict()["state"] == {}
        theirs.load_state_dict(taken_over)
        run_torch(torch, module, theirs, SECOND, schedule)
        assert distance(to_flax(arrays_of(module)), expected) <= tolerance


def check_same(torch, ours, theirs):
    assert ours["param_groups"] == theirs["param_groups"]
    assert ours["state"].keys() == theirs["state"].keys()
    for index, kept in theirs["state"].items():
        assert ours["state"][index].keys() == kept.keys()
        for entry, tensor in kept.items():
            # The product is computed anew.
            rtol = 1e-5 if entry == "mu_product" else 0
            torch.testing.assert_close(ours["state"][index][entry], tensor, rtol=rtol, atol=0)


def test_groups_are_one_optimizer_with_a_mask_and_frozen_parameters_have_no_state(torch):
    with jax.enable_x64(True):
        module = module_of(torch)
        module[0].bias.requires_grad_(False)
        named = dict(module.named_parameters())
        weights = {"params": [named["0.weight"], named["3.weight"]], "weight_decay": 0.1}
        biases = {"params": [named["3.bias"], named["0.bias"]], "weight_decay": 0.0}
        theirs = torch.optim.AdamW([weights, biases], lr=RATE)
        run_torch(torch, module, theirs, FIRST)
        params = to_flax(arrays_of(module))
        frozen = {"Conv_0": {"kernel": True, "bias": False}, "Dense_0": True}
        whole = aj.adamw(RATE, weight_decay=0.1, mask=aj.decay_except())
        ours = optax.masked(whole, frozen)

        def layout(arrays):
            assert "0.bias" not in arrays
            return to_flax(arrays | {"0.bias": None})

        names = ["0.weight", "3.weight", "3.bias", "0.bias"]
        state = from_torch(ours, params, theirs.state_dict(), layout, names)
        chex.assert_trees_all_equal_structs(state, ours.init(params))
        again = to_torch(ours, params, state, theirs, of_flax, names)
        check_same(torch, again, theirs.state_dict())


def test_names_may_stand_in_the_state_dict(torch):
    with jax.enable_x64(True):
        module = module_of(torch)
        theirs = torch.optim.Adam(module.named_parameters(), lr=RATE)
        run_torch(torch, module, theirs, range(3))
        ours, params = aj.adam(RATE), to_flax(arrays_of(module))
        by_number = theirs.state_dict()
        state = from_torch(ours, params, by_number, to_flax)
        check_same(torch, to_torch(ours, params, state, theirs, of_flax), by_number)
        # As torch.distributed.checkpoint writes it.
        by_name = {
            "state": {NAMES[index]: kept for index, kept in by_number["state"].items()},
            "param_groups": [{"params": NAMES}],
        }
        chex.assert_trees_all_equal(from_torch(ours, params, by_name, to_flax), state)
        # Other names are a mistake, even where the shapes are the same.
        refused(
            lambda: from_torch(ours, params, by_number, to_flax, [*NAMES[:3], "2.bias"]),
            "names has 2.bias where PyTorch's optimizer has 3.bias",
        )


def test_a_copy_is_made_of_every_tensor(adamw, torch):
    ours, params, theirs = adamw
    state = from_torch(ours, params, theirs.state_dict(), to_flax, NAMES)
    before = jax.tree.map(np.array, state)
    for kept in theirs.state.values():
        for tensor in kept.values():
            tensor.zero_()
    chex.assert_trees_all_equal(state, before)


def test_half_precision_is_widened_and_narrowed_only_if_told(torch):
    module = module_of(torch, torch.bfloat16)
    theirs = torch.optim.Adam(module.parameters(), lr=RATE)
    for p in module.parameters():
        p.grad = torch.ones_like(p)
    theirs.step()
    ours = aj.adam(RATE)
    params = to_flax(
        {
            n: jnp.asarray(p.detach().float().numpy(), jnp.bfloat16)
            for n, p in module.named_parameters()
        }
    )
    state = from_torch(ours, params, theirs.state_dict(), to_flax, NAMES)
    assert {x.dtype for x in jax.tree.leaves(state)} == {jnp.dtype(jnp.float32), jnp.dtype("int32")}
    message = "dtypes float32 and bfloat16, which has fewer digits .narrow=True rounds to it.: mu/"
    with pytest.raises(ValueError, match=message):
        to_torch(ours, params, state, theirs, of_flax, NAMES)
    again = to_torch(ours, params, state, theirs, of_flax, NAMES, narrow=True)
    check_same(torch, again, theirs.state_dict())


def test_nadam_goes_on_once_b1_is_warm(torch):
    with jax.enable_x64(True):
        module, theirs = trained(torch, "NAdam")
        params, ours = to_flax(arrays_of(module)), aj.nadam(RATE)
        warming = (
            r"NAdam warms b1 up: at step 4 it is 0.4502938 with momentum_decay=0.004, and 0.9 "
        )
        with pytest.raises(ValueError, match=warming):
            from_torch(ours, params, theirs.state_dict(), to_flax, NAMES)
        with pytest.raises(ValueError, match="at step 1 it is 0.4500735 with"):
            to_torch(ours, params, ours.init(params), theirs, of_flax, NAMES)
        late = theirs.state_dict()
        for kept in late["state"].values():
            kept["step"].fill_(100_000)
            kept["mu_product"].fill_(0)
        state = from_torch(ours, params, late, to_flax, NAMES)
        check_same(torch, to_torch(ours, params, state, theirs, of_flax, NAMES), late)
