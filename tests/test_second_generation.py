"""The second generation beside Optax and PyTorch, over a thousand steps, and what differs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
import reference
from cases import Problem, error, problem
from test_peers import torch, torch_end  # noqa: F401  a fixture

import adamw_jax as aj

RATE, WARM_UP = 1e-2, 100
ADAM = {"b1": 0.8, "b2": 0.99, "eps": 1e-6}
THEIRS = {"lr": RATE, "betas": (0.8, 0.99), "eps": 1e-6}
DECAY = {"weight_decay": 0.1}


def warm_up(step):
    """The paper's γ min(1, t/T)."""
    return RATE * jnp.minimum(1, (step + 1.0) / WARM_UP)


def growing(step):
    return 2.0 * jnp.minimum(1, 0.002 * step)


def matrices(steps):
    """The quadratics with a row for the bias, since the peers' Muon takes matrices only."""
    parts = dataclasses.asdict(problem(steps))
    for part in parts.values():
        part["bias"] = part["bias"][..., None, :]
    return Problem(**parts)


# Without eps, the bias correction of Optax's momentum makes no difference.
MUON = {"beta": 0.8, "eps": 0.0, "nesterov": False} | DECAY
# Optax has Adafactor's decay rate in float32.
IN_FLOAT32 = {"adafactor": 1e-5}
OPTAX = {
    "schedule_free_adamw": (
        aj.schedule_free_adamw(RATE, **ADAM, **DECAY),
        optax.contrib.schedule_free_adamw(RATE, **ADAM, **DECAY),
    ),
    "ademamix": (
        aj.ademamix(RATE, **ADAM, **DECAY, b3=0.999, alpha=2.0),
        optax.contrib.ademamix(RATE, **ADAM, **DECAY, b3=0.999, alpha=2.0),
    ),
    "ademamix scheduled": (
        aj.ademamix(RATE, **ADAM, b3=aj.half_life_warmup(0.8, 0.999, 500), alpha=growing),
        optax.contrib.ademamix(
            RATE, **ADAM, b3=aj.half_life_warmup(0.8, 0.999, 500), alpha=growing
        ),
    ),
    "adopt": (aj.adopt(RATE, **ADAM), optax.contrib.adopt(RATE, **ADAM)),
    "adopt nesterov": (
        aj.adopt(RATE, **ADAM, nesterov=True),
        optax.contrib.adopt(RATE, **ADAM, nesterov=True),
    ),
    "adafactor": (
        aj.adafactor(RATE, min_axis=2),
        optax.adafactor(RATE, min_dim_size_to_factor=2),
    ),
    "muon": (aj.muon(RATE, 0.8, 0.0, **DECAY, nesterov=False), optax.contrib.muon(RATE, **MUON)),
    "muon as long as AdamW": (
        aj.muon(RATE, 0.8, 0.0, **DECAY, nesterov=False, scale="match_rms_adamw"),
        optax.contrib.muon(RATE, **MUON, consistent_rms=0.2),
    ),
}


@pytest.mark.parametrize("name", OPTAX)
def test_equals_optax_over_a_thousand_steps(name):
    quadratics, (ours, peer) = matrices(1000), OPTAX[name]
    with jax.enable_x64(True):
        expected = quadratics.descend(peer, jnp.float64)
        found = error(quadratics.descend(ours, jnp.float64), expected)
    assert found < IN_FLOAT32.get(name, 1e-10)


def test_adafactor_equals_pytorch_over_a_thousand_steps(torch):  # noqa: F811
    # Where the rate is below PyTorch's bound 1/√t, and no square is near its eps.
    quadratics = problem(1000)
    expected = torch_end(torch, quadratics, "Adafactor", {"lr": RATE} | DECAY)
    with jax.enable_x64(True):
        ours = quadratics.descend(aj.adafactor(RATE, **DECAY, min_axis=2), jnp.float64)
    assert error(ours, expected) < 1e-10


def test_muon_of_pytorch_has_the_axes_the_other_way_and_computes_in_bfloat16(torch):  # noqa: F811
    quadratics = matrices(1000)
    arguments = {"lr": RATE, "momentum": 0.8, "eps": 1e-7} | DECAY
    turned = Problem(
        *(
            {name: np.ascontiguousarray(x.swapaxes(-1, -2)) for name, x in part.items()}
            for part in (quadratics.start, quadratics.slope, quadratics.noise)
        )
    )
    for scale in "original", "match_rms_adamw":
        theirs = torch_end(torch, turned, "Muon", arguments | {"adjust_lr_fn": scale})
        theirs = {name: x.swapaxes(-1, -2) for name, x in theirs.items()}
        ours = quadratics.descend(aj.muon(RATE, 0.8, **DECAY, scale=scale))
        assert error(ours, theirs) < 0.1


# Which implementation of Schedule-Free AdamW is that of the paper?


@pytest.fixture(scope="module")
def warmed_up():
    """The quadratics, and where the paper's algorithm ends: y, and x, which it returns."""
    quadratics = problem(1000)

    def α(step):
        return RATE * min(1, (step + 1) / WARM_UP)

    numbers = {"α": α, "λ": lambda step: 0.1 * α(step), "β1": 0.8, "β2": 0.99, "ε": 1e-6}
    ends = (
        quadratics.reference(reference.schedule_free_adamw, **numbers, averaged=averaged)
        for averaged in (False, True)
    )
    return quadratics, *ends


def test_schedule_free_is_the_papers_with_warm_up_and_its_average_is_x(warmed_up):
    quadratics, y, x = warmed_up
    tx = aj.schedule_free_adamw(warm_up, **ADAM, **DECAY)
    with jax.enable_x64(True):
        params, state = quadratics.last(tx, jnp.float64)
        averaged = jax.tree.map(np.asarray, aj.schedule_free_eval_params(state, params))
    assert error(params, y) < 1e-10 and error(averaged, x) < 1e-10
    assert error(x, y) > 1e-3
    params, state = quadratics.last(tx)
    assert error(aj.schedule_free_eval_params(state, params), x) < 2e-5


@pytest.mark.parametrize("name", ["AdamWScheduleFree", "AdamWScheduleFreeReference"])
def test_schedule_free_of_the_authors_is_that_of_the_paper(warmed_up, torch, name):  # noqa: F811
    theirs = getattr(pytest.importorskip("schedulefree"), name)
    quadratics, y, x = warmed_up
    for leaf in quadratics.start:
        θ = torch.nn.Parameter(torch.from_numpy(np.array(quadratics.start[leaf])))
        optimizer = theirs([θ], **THEIRS, **DECAY, warmup_steps=WARM_UP, foreach=False)
        optimizer.train()
        for noise in quadratics.noise[leaf]:
            gradient = quadratics.slope[leaf] * θ.detach().numpy() + noise
            θ.grad = torch.from_numpy(gradient)
            optimizer.step()
        np.testing.assert_allclose(θ.detach().numpy(), y[leaf], rtol=1e-9)
        optimizer.eval()
        np.testing.assert_allclose(θ.detach().numpy(), x[leaf], rtol=1e-9)


def test_schedule_free_of_optax_steps_at_the_rate_of_the_step_before_while_it_warms_up(warmed_up):
    quadratics, y, _ = warmed_up
    peer = optax.contrib.schedule_free_adamw(RATE, WARM_UP, **ADAM, **DECAY)

    def lag(step):
        return jnp.minimum(step, WARM_UP) / jnp.minimum(step + 1.0, WARM_UP)

    scaled = aj.chain(aj.second_moment(0.99), aj.bias_correction(0.99))
    lagging = aj.chain(
        aj.parallel(aj.chain(), scaled, merge=aj.rms_ratio(1e-6)),
        aj.decoupled_weight_decay(0.1),
        aj.scale_by_learning_rate(lag, flip_sign=False),
        aj.schedule_free(warm_up, 0.8),
    )
    with jax.enable_x64(True):
        theirs = quadratics.descend(peer, jnp.float64)
        # Optax has its warm-up in float32.
        assert error(quadratics.descend(lagging, jnp.float64), theirs) < 1e-6
    assert error(theirs, y) > 1e-4
