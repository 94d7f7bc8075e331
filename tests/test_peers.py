"""Equal to PyTorch where both mean the same, and where not, the difference as a formula."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import error, problem

import adamw_jax as aj

RATE, DECAY = 1e-2, 0.1
OURS = {"learning_rate": RATE, "b1": 0.8, "b2": 0.99, "eps": 1e-6}
THEIRS = {"lr": RATE, "betas": (0.8, 0.99), "eps": 1e-6}
# PyTorch adds eps elsewhere in AdaMax and RAdam; see below.
NO_EPS = {"eps": 0}
BEFORE = {"max_before_correction": True}
L2, DECOUPLED = {"weight_decay": DECAY}, {"decoupled_weight_decay": True, "weight_decay": DECAY}
# So large that PyTorch's NAdam has warmed b1 up at the first step.
WARM = {"momentum_decay": 1e9}


def falling(step):
    """A schedule for LambdaLR and JAX alike, from 1 to ½ in 1,000 steps."""
    return 1 / (1 + 1e-3 * step)


@pytest.fixture(scope="module")
def torch():
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    torch.set_num_threads(1)
    return torch


# Ours, the class in torch.optim, and its arguments; `schedule` is the factor of a LambdaLR.
PEERS = {
    "heavy_ball_gd": (aj.heavy_ball_gd(1e-3, 0.8), "SGD", {"lr": 1e-3, "momentum": 0.8}),
    "heavy_ball_gd nesterov": (
        aj.heavy_ball_gd(1e-3, 0.8, nesterov=True),
        "SGD",
        {"lr": 1e-3, "momentum": 0.8, "nesterov": True},
    ),
    "heavy_ball_gd with L2": (
        aj.chain(aj.l2_regularization(DECAY), aj.heavy_ball_gd(1e-3, 0.8)),
        "SGD",
        {"lr": 1e-3, "momentum": 0.8} | L2,
    ),
    "rmsprop": (
        aj.rmsprop(RATE, 0.95, 1e-6),
        "RMSprop",
        {"lr": RATE, "alpha": 0.95, "eps": 1e-6},
    ),
    "amsgrad": (aj.amsgrad(**OURS, **BEFORE), "Adam", THEIRS | {"amsgrad": True}),
    "amsgradw": (
        aj.amsgradw(**OURS, **L2, **BEFORE),
        "AdamW",
        THEIRS | L2 | {"amsgrad": True},
    ),
    "adamax": (aj.adamax(**OURS | NO_EPS), "Adamax", THEIRS | NO_EPS),
    "nadam": (aj.nadam(**OURS), "NAdam", THEIRS | WARM),
    "nadamw": (aj.nadamw(**OURS, **L2), "NAdam", THEIRS | WARM | DECOUPLED),
    "radam": (aj.radam(**OURS | NO_EPS), "RAdam", THEIRS | NO_EPS),
    "radam with decoupled decay": (
        aj.decayed_per_step(aj.radam(**OURS | NO_EPS), RATE * DECAY),
        "RAdam",
        THEIRS | NO_EPS | DECOUPLED,
    ),
    "adamw scheduled": (
        aj.adamw(**OURS | {"learning_rate": lambda step: RATE * falling(step)}, **L2),
        "AdamW",
        THEIRS | L2 | {"schedule": falling},
    ),
    # PyTorch multiplies by α·η what is λ/α there.
    "adam decayed per step": (
        aj.decayed_per_step(aj.adam(**OURS), 2e-3, falling),
        "AdamW",
        THEIRS | {"weight_decay": 2e-3 / RATE, "schedule": falling},
    ),
    "amsgrad decayed per step": (
        aj.decayed_per_step(aj.amsgrad(**OURS, **BEFORE), 2e-3, falling),
        "AdamW",
        THEIRS | {"weight_decay": 2e-3 / RATE, "schedule": falling, "amsgrad": True},
    ),
    # Of a schedule of the learning rate alone the decay knows nothing.
    "adam decayed per step, constant": (
        aj.decayed_per_step(aj.adam(**OURS), 2e-3),
        "AdamW",
        THEIRS | {"weight_decay": 2e-3 / RATE},
    ),
}


def steps_of(torch, θ, name, schedule=None, **arguments):
    """A function that takes a gradient to the next θ."""
    θ = torch.nn.Parameter(torch.from_numpy(np.array(θ, np.float64)))
    optimizer = getattr(torch.optim, name)([θ], **arguments)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule or (lambda step: 1.0))

    def step(gradient):
        θ.grad = torch.from_numpy(np.array(gradient(θ.detach().numpy()), np.float64))
        optimizer.step()
        scheduler.step()
        return θ.detach().numpy().copy()

    return step


def torch_end(torch, quadratics, name, arguments):
    """The end of the run with PyTorch, in float64."""
    end = {}
    for leaf in quadratics.start:
        slope, noise = quadratics.slope[leaf], quadratics.noise[leaf]
        step = steps_of(torch, quadratics.start[leaf], name, **arguments)
        for n in noise:
            end[leaf] = step(lambda θ, slope=slope, n=n: slope * θ + n)
    return end


@pytest.mark.parametrize("tx, name, arguments", PEERS.values(), ids=PEERS)
def test_equals_pytorch_over_a_thousand_steps(torch, tx, name, arguments):
    quadratics = problem(1000)
    expected = torch_end(torch, quadratics, name, arguments)
    with jax.enable_x64(True):
        assert error(quadratics.descend(tx, jnp.float64), expected) < 1e-10


# The differences, along gradients that do not depend on θ.

GRADIENTS = np.random.default_rng(0).normal(size=(40, 3)) * 10.0 ** np.array([-3, -1, 1])


def torch_path(torch, name, gradients=GRADIENTS, **arguments):
    """θ after each step from 0."""
    step = steps_of(torch, np.zeros(gradients.shape[1]), name, **arguments)
    return np.array([step(lambda θ, g=g: g) for g in gradients])


def path(tx, gradients=GRADIENTS):
    """The same with an optimizer in JAX, in float64."""
    with jax.enable_x64(True):
        θ = jnp.zeros(gradients.shape[1])

        @jax.jit
        def scan(gradients):
            def step(carry, g):
                θ, state = carry
                updates, state = tx.update(g, state, θ)
                θ = optax.apply_updates(θ, updates)
                return (θ, state), θ

            return jax.lax.scan(step, (θ, tx.init(θ)), gradients)[1]

        return np.asarray(scan(jnp.asarray(gradients)))


def descent(direction, gradients=GRADIENTS):
    """The same by a formula, t and the gradients up to t → the direction."""
    steps = [direction(t, gradients[:t]) for t in range(1, len(gradients) + 1)]
    return -RATE * np.cumsum(steps, axis=0)


def m_hat(t, gradients, b1=0.8):
    weights = b1 ** np.arange(t)[::-1]
    return np.tensordot(weights, gradients, 1) * (1 - b1) / (1 - b1**t)


def v_hat(t, gradients, b2=0.99):
    return m_hat(t, gradients**2, b2)


def close(actual, expected, tolerance=1e-11):
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance * RATE)


def test_the_average_of_pytorch_with_dampening_starts_at_the_first_gradient(torch):
    # m = g₁ and not (1 − b1) g₁ at first, of which b1ᵗ is left at step t.
    b1 = 0.8
    theirs = torch_path(torch, "SGD", lr=RATE, momentum=b1, dampening=b1)
    extra = descent(lambda t, gradients: b1**t * gradients[0])
    close(theirs, path(aj.momentum_gd(RATE, b1)) + extra)
    assert np.max(np.abs(extra)) > 1e-2
    # Without dampening it is the sum, and nothing is different.
    close(torch_path(torch, "SGD", lr=RATE, momentum=b1), path(aj.heavy_ball_gd(RATE, b1)))


def test_nadam_of_pytorch_warms_b1_up(torch):
    b1, decay = 0.8, 4e-3

    def mu(t):
        return b1 * (1 - 0.5 * 0.96 ** (t * decay))

    def direction(t, gradients):
        m = m_hat(t, gradients) * (1 - b1**t)
        product = np.prod([mu(s) for s in range(1, t + 1)])
        ahead = mu(t + 1) * m / (1 - product * mu(t + 1))
        return (ahead + (1 - mu(t)) * gradients[-1] / (1 - product)) / np.sqrt(v_hat(t, gradients))

    theirs, ours = torch_path(torch, "NAdam", **THEIRS | NO_EPS), path(aj.nadam(**OURS | NO_EPS))
    # PyTorch keeps the product of the μ in float32.
    close(theirs, descent(direction), 1e-6)
    # Ours is the same formula with μ = b1, from which the default is far away.
    assert np.all(np.abs(ours[0] / theirs[0] - 1) > 0.1)
    decay = np.inf
    close(ours, descent(direction))


def test_adamax_of_the_peers_counts_eps_as_a_gradient(torch):
    b2, eps = 0.99, 0.1
    fading = b2 ** np.arange(40)[::-1, None]

    def theirs(t, gradients):
        return m_hat(t, gradients) / np.max(fading[-t:] * (np.abs(gradients) + eps), axis=0)

    def ours(t, gradients):
        return m_hat(t, gradients) / (np.max(fading[-t:] * np.abs(gradients), axis=0) + eps)

    numbers = OURS | {"eps": eps}
    close(torch_path(torch, "Adamax", **THEIRS | {"eps": eps}), descent(theirs))
    close(path(optax.adamax(**numbers)), descent(theirs))
    close(path(aj.adamax(**numbers)), descent(ours))
    assert error({"": descent(ours)}, {"": descent(theirs)}) > 1e-3
    # Of a gradient that stays the same, they take the same steps.
    same = np.ones_like(GRADIENTS)
    close(path(aj.adamax(**numbers), same), path(optax.adamax(**numbers), same))


def test_radam_of_the_peers_adds_eps_before_the_rectification(torch):
    b2, eps = 0.99, 0.1

    def r(t):
        ρ_inf = 2 / (1 - b2) - 1
        ρ = ρ_inf - 2 * t * b2**t / (1 - b2**t)
        square = (ρ - 4) * (ρ - 2) * ρ_inf / ((ρ_inf - 4) * (ρ_inf - 2) * ρ)
        return np.sqrt(square) if ρ > 5 else None

    def optaxs(t, gradients):
        m, root = m_hat(t, gradients), np.sqrt(v_hat(t, gradients))
        return m if r(t) is None else r(t) * m / (root + eps)

    def pytorchs(t, gradients):
        # To √v, before the bias correction.
        m, root = m_hat(t, gradients), np.sqrt(v_hat(t, gradients))
        return m if r(t) is None else r(t) * m / (root + eps / np.sqrt(1 - b2**t))

    def ours(t, gradients):
        m, root = m_hat(t, gradients), np.sqrt(v_hat(t, gradients))
        return m / (1 + eps) if r(t) is None else r(t) * m / (root + r(t) * eps)

    assert [r(t) is None for t in range(1, 8)] == [True] * 5 + [False] * 2
    numbers = OURS | {"eps": eps}
    close(torch_path(torch, "RAdam", **THEIRS | {"eps": eps}), descent(pytorchs))
    close(path(optax.radam(**numbers)), descent(optaxs))
    close(path(aj.radam(**numbers)), descent(ours))
    for theirs in pytorchs, optaxs:
        assert error({"": descent(ours)}, {"": descent(theirs)}) > 1e-3


def test_rmsprop_of_optax_has_eps_in_the_root_which_is_eps_root():
    inside, outside = aj.rmsprop(RATE, 0.9, 0, eps_root=0.1), aj.rmsprop(RATE, 0.9, 0.1)
    close(path(inside), path(optax.rmsprop(RATE, 0.9, 0.1)))
    close(path(outside), path(optax.rmsprop(RATE, 0.9, 0.1, eps_in_sqrt=False)))
    assert error({"": path(inside)}, {"": path(outside)}) > 1e-2


def test_the_maximum_of_amsgrad_is_before_the_correction_in_pytorch_and_after_it_in_optax(torch):
    # A gradient of one, and then nothing: v̂ is 1 at first, and v is 1 − b2.
    b1, b2 = 0.8, 0.99
    gradients = np.concatenate([np.ones((1, 1)), np.zeros((9, 1))])

    def before(t, gradients):
        return m_hat(t, gradients) / np.sqrt((1 - b2) / (1 - b2**t))

    numbers = OURS | NO_EPS
    theirs = torch_path(torch, "Adam", gradients, amsgrad=True, **THEIRS | NO_EPS)
    close(theirs, descent(before, gradients))
    close(path(aj.amsgrad(**numbers, **BEFORE), gradients), descent(before, gradients))
    close(path(aj.amsgrad(**numbers), gradients), descent(m_hat, gradients))
    close(path(optax.amsgrad(**numbers), gradients), descent(m_hat, gradients))
    second_steps = np.diff(theirs[:2, 0]), np.diff(path(aj.amsgrad(**numbers), gradients)[:2, 0])
    np.testing.assert_allclose(second_steps[0] / second_steps[1], np.sqrt(1 + b2))
    np.testing.assert_allclose(second_steps[1], -RATE * b1 / (1 + b1))


def test_the_average_of_pytorch_starts_at_the_first_parameters_and_remembers_them(torch):
    b2, steps = 0.9, 30
    averages = torch.optim.swa_utils
    model = torch.nn.Linear(1, 3, bias=False, dtype=torch.float64)
    averaged = averages.AveragedModel(model, multi_avg_fn=averages.get_ema_multi_avg_fn(b2))
    tx = aj.temporal_average(b2)
    with jax.enable_x64(True):
        θ = first = jnp.zeros(3)
        state = tx.init(θ)
        for t, g in enumerate(GRADIENTS[:steps], start=1):
            _, state = tx.update(jnp.asarray(g), state, θ)
            θ = θ + g
            first = first if t > 1 else θ
            with torch.no_grad():
                model.weight.copy_(torch.from_numpy(np.array(θ))[:, None])
            averaged.update_parameters(model)
            (theirs,) = (p.detach().numpy()[:, 0] for p in averaged.parameters())
            ours = optax.tree.get(state, "average")
            np.testing.assert_allclose(theirs, (1 - b2**t) * ours + b2**t * first, rtol=1e-12)
            assert t == 1 or np.all(np.abs(theirs - ours) > 1e-6)


def test_the_clipping_of_stable_adamw_is_not_that_of_optax():
    # After small gradients comes a large one in one coordinate of four: g/√v̂ is far above 1
    # in the mean, and the step is not, because most of its momentum is of small gradients.
    eps, gradients = 1e-8, np.ones((20, 4))
    gradients[-1, 0] = 100.0
    numbers = {"learning_rate": RATE, "b1": 0.99, "b2": 0.999, "eps": eps}

    def step(t, gradients):
        return m_hat(t, gradients, 0.99) / (np.sqrt(v_hat(t, gradients, 0.999)) + eps)

    def shortened(t, gradients):
        squares = gradients[-1] ** 2 / v_hat(t, gradients, 0.999)
        return step(t, gradients) / max(1, np.sqrt(np.mean(squares)))

    by_block = optax.chain(
        optax.scale_by_adam(0.99, 0.999, eps),
        optax.clip_by_block_rms(1.0),
        optax.scale_by_learning_rate(RATE),
    )
    close(
        path(aj.stable_adamw(**numbers, weight_decay=0), gradients), descent(shortened, gradients)
    )

    def by_its_own_rms(t, gradients):
        u = step(t, gradients)
        return u / max(1, np.sqrt(np.mean(u**2)))

    close(path(by_block, gradients), descent(by_its_own_rms, gradients))
    u, ours, theirs = (f(20, gradients) for f in (step, shortened, by_its_own_rms))
    assert np.all(ours < 0.5 * u) and np.all(theirs > 0.9 * u)


@pytest.mark.parametrize(
    "T_0, T_mult, share", [(1, 2, 0.0), (3, 1, 0.1), (7, 2, 0.1), (10, 3, 0.0), (100, 1, 0.5)]
)
def test_warm_restarts_equal_pytorch_step_by_step(torch, T_0, T_mult, share):
    θ = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    θ.grad = torch.zeros_like(θ)
    optimizer = torch.optim.SGD([θ], lr=RATE)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(
        optimizer, T_0, T_mult, eta_min=share * RATE
    )
    expected = []
    for _ in range(1200):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    schedule = aj.cosine_warm_restarts(T_0, T_mult, floor=share)
    np.testing.assert_allclose(RATE * schedule(np.arange(1200)), expected, atol=1e-6 * RATE)
    with jax.enable_x64(True):
        np.testing.assert_allclose(RATE * schedule(np.arange(1200)), expected, rtol=1e-12)
