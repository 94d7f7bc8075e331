"""The recipes of docs/recipes.md, run as they stand, beside their papers in float64."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference
from cases import error, problem

import adamw_jax as aj

PAGE = (Path(__file__).parent.parent / "docs/recipes.md").read_text()
RATE = 1e-2
TOLERANCE = 1e-6  # schedules on the page divide the step in float32


@pytest.fixture(scope="module")
def recipes():
    names = {"__name__": "recipes"}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(block, "recipes.md", "exec"), names)
    return names


def laprop(θ, gradient, steps):
    n, m = 0.0, 0.0
    for t in range(1, steps + 1):
        g = gradient(θ, t)
        n = 0.99 * n + 0.01 * g**2
        m = 0.9 * m + 0.1 * g / (np.sqrt(n / (1 - 0.99**t)) + 1e-15)
        θ = θ - RATE * m / (1 - 0.9**t)
    return θ


def adam_atan2(θ, gradient, steps):
    m, v = 0.0, 0.0
    for t in range(1, steps + 1):
        g = gradient(θ, t)
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
        θ = θ - RATE * np.arctan2(m / (1 - 0.9**t), np.sqrt(v / (1 - 0.99**t)))
    return θ


def mars(θ, gradient, steps):
    m, v, old = 0.0, 0.0, 0.0
    for t in range(1, steps + 1):
        g = gradient(θ, t)
        c = g + 0.025 * 0.9 / 0.1 * (g - old)
        c, old = c / max(1, np.linalg.norm(c)), g
        m, v = 0.9 * m + 0.1 * c, 0.99 * v + 0.01 * c**2
        step = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.99**t)) + 1e-8)
        θ = θ - RATE * (step + 0.1 * θ)
    return θ


def adan(θ, gradient, steps):
    """With the paper's β as 1 − β, as in its code, and its bias corrections."""
    m, v, n, old = 0.0, 0.0, 0.0, None
    for t in range(1, steps + 1):
        g = gradient(θ, t)
        change, old = g - (g if old is None else old), g
        m = 0.98 * m + 0.02 * g
        v = 0.92 * v + 0.08 * change
        n = 0.99 * n + 0.01 * (g + 0.92 * change) ** 2
        root = np.sqrt(n / (1 - 0.99**t)) + 1e-8
        η = RATE / root
        θ = θ - η * (m / (1 - 0.98**t) + 0.92 * v / (1 - 0.92**t))
        θ = θ / (1 + RATE * 0.02)
    return θ


def grokfast(θ, gradient, steps):
    slow = np.zeros_like(θ)

    def amplified(θ, t):
        nonlocal slow
        g = gradient(θ, t)
        slow = 0.98 * slow + 0.02 * g
        return g + 2.0 * slow

    return reference.adamw(θ, amplified, steps, α=RATE, λ=0.1 * RATE, β1=0.9, β2=0.99)


def to_average(θ, gradient, steps):
    """With the average's weight of the newest as HeavyBall's `beta_debias` has it."""
    m, v, mean = 0.0, 0.0, 0.0
    for t in range(1, steps + 1):
        g = gradient(θ, t)
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
        mean = mean + (1 - 0.99) / (1 - 0.99**t) * (θ - mean)
        step = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.99**t)) + 1e-8)
        θ = θ - RATE * (step + 0.1 * (θ - mean))
    return θ


def c_lion(θ, gradient, steps):
    m = 0.0
    for t in range(1, steps + 1):
        g = gradient(θ, t)
        u = np.sign(0.9 * m + 0.1 * g)
        φ = u * g > 0
        θ = θ - RATE * (φ * u / max(np.mean(φ), 1e-3) + 0.1 * θ)
        m = 0.99 * m + 0.01 * g
    return θ


def wsd(step):
    rise, fall = RATE * min(1, (step + 1) / 100), 1 - np.sqrt(min(max(step - 800, 0) / 200, 1))
    return min(rise, RATE * fall)


def trained_longer(θ, gradient, steps):
    return reference.adamw(θ, gradient, steps, α=wsd, λ=lambda step: 0.1 * wsd(step))


def agc(θ, gradient, steps):
    def clipped(θ, t):
        g = gradient(θ, t)
        # By columns, as the paper clips each unit's weights; a vector is clipped whole.
        axis = 0 if θ.ndim == 2 else None
        sizes = [np.sqrt(np.sum(x**2, axis=axis, keepdims=True)) for x in (g, θ)]
        limit = 0.01 * np.maximum(sizes[1], 1e-3)
        return np.where(sizes[0] > limit, g * limit / np.maximum(sizes[0], 1e-6), g)

    return reference.adamw(θ, clipped, steps, α=RATE, λ=0.1 * RATE)


def decayed(pull):
    """Adam with a falling or constant rate, and what `pull` takes away, by shape and step."""

    def paper(θ, gradient, steps):
        m, v, start = 0.0, 0.0, θ
        for t in range(1, steps + 1):
            g = gradient(θ, t)
            m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
            α, taken = pull(θ, t, start)
            step = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.99**t)) + 1e-8)
            θ = θ - α * step - taken
        return θ

    return paper


def adam_c(θ, t, start):
    α = RATE * (1 - (t - 1) / 1000)
    corrected = θ.ndim == 2  # the kernel
    return α, 0.1 * θ * (α**2 / RATE if corrected else α)


def decay_as_square(θ, t, start):
    α = RATE * (1 - (t - 1) / 1000)
    return α, 0.1 / RATE * α**2 * θ


DECAYS = {
    "adam_c": adam_c,
    "decay_as_square": decay_as_square,
    "independent": lambda θ, t, start: (RATE * (1 - (t - 1) / 1000), 1e-3 * θ),
    "adam_hd": lambda θ, t, start: (RATE, RATE * 0.1 * np.minimum(np.abs(θ), 0.5) * np.sign(θ)),
    "fine_tuning": lambda θ, t, start: (RATE, RATE * 0.1 * (θ - start)),
}


@pytest.mark.parametrize("name", DECAYS)
def test_a_decay_equals_its_rule_over_a_thousand_steps(recipes, name):
    quadratics = problem(1000)
    expected = quadratics.reference(decayed(DECAYS[name]))
    with jax.enable_x64(True):
        tx = recipes[name]
        if name == "fine_tuning":
            tx = tx(jax.tree.map(jnp.asarray, quadratics.start))
        ours = quadratics.descend(tx, jnp.float64)
    assert error(ours, expected) < TOLERANCE


# Where the rules pull: from how far their λ is measured here, towards what and up to where.
PULLS = {name: (1.0, "zero", np.inf) for name in ("adam_c", "decay_as_square", "independent")}
PULLS |= {"adam_hd": (0.25, "zero", 0.5), "fine_tuning": (1.0, "fixed weights", np.inf)}


@pytest.mark.parametrize("name", PULLS)
@pytest.mark.parametrize("options", [{"step": 400}, {"steps": 1000}], ids=str)
def test_the_report_shows_what_a_rule_takes_away_and_towards_what(recipes, name, options):
    distance, towards, up_to = PULLS[name]
    tx, start = recipes[name], {"kernel": jnp.full((2, 3), 0.7), "bias": jnp.full(3, -0.3)}
    tx = tx(start) if name == "fine_tuning" else tx
    first = options.get("step", 0)
    steps = range(first + 1, first + options.get("steps", 1) + 1)
    for row in aj.decay_report(tx, start, **options).rows:
        center = np.float64(start[row.path]) if name == "fine_tuning" else np.zeros(row.shape)
        taken = [DECAYS[name](center + distance, t, center)[1].flat[0] / distance for t in steps]
        np.testing.assert_allclose(row.decay_per_step, np.max(taken), rtol=1e-4)
        np.testing.assert_allclose(row.timescale, 1 / np.max(taken), rtol=1e-4)
        assert (row.towards, row.up_to) == (towards, pytest.approx(up_to, rel=1e-3))
        if row.over_run:
            np.testing.assert_allclose(row.over_run.per_step, taken, rtol=1e-4)
            remaining = np.prod(1 - np.array(taken))
            np.testing.assert_allclose(row.over_run.remaining, remaining, rtol=1e-5)


def test_the_report_shows_a_pull_towards_the_average_of_where_the_weights_stood(recipes):
    tx, params = recipes["to_average"], {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    # After t − 1 steps at c and one at θ, θ less its average is this part of θ − c.
    t = np.arange(1, 1001)
    taken = RATE * 0.1 * (0.99 - 0.99**t) / (1 - 0.99**t)
    for row in aj.decay_report(tx, params, steps=1000).rows:
        np.testing.assert_allclose(row.over_run.per_step, taken, rtol=1e-4, atol=1e-9)
        assert (row.towards, row.up_to) == ("earlier weights", np.inf)
    for row in aj.decay_report(tx, params, step=400).rows:
        np.testing.assert_allclose(row.decay_per_step, taken[400], rtol=1e-4)
        assert row.towards == "earlier weights"
    # In the first step the average is the weights themselves.
    assert {row.decay_per_step for row in aj.decay_report(tx, params).rows} == {0}


PAPERS = [laprop, adam_atan2, mars, adan, grokfast, to_average, c_lion, trained_longer, agc]


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: paper.__name__)
def test_a_recipe_equals_its_paper_over_a_thousand_steps(recipes, paper):
    quadratics = problem(1000)
    expected = quadratics.reference(paper)
    with jax.enable_x64(True):
        ours = quadratics.descend(recipes[paper.__name__], jnp.float64)
    assert error(ours, expected) < TOLERANCE


def test_layers_learn_more_slowly_the_lower_they_are(recipes):
    params = {
        "layers": [{"kernel": jnp.ones(2)} for _ in range(3)],
        "head": {"kernel": jnp.ones(2)},
    }
    tx = recipes["layerwise"](3)
    updates, _ = tx.update(params, tx.init(params), params)
    steps = [-float(u["kernel"][0]) for u in (*updates["layers"], updates["head"])]
    np.testing.assert_allclose(np.divide(steps[1:], steps[:-1]), 1 / 0.8, rtol=1e-5)


def test_a_sign_is_averaged_to_where_the_loss_is_least(recipes):
    tx, params = recipes["schedule_free_sign"], jnp.float32([0.5, -0.2])
    state = tx.init(params)
    for _ in range(600):
        updates, state = tx.update(params, state, params)
        params = optax.apply_updates(params, updates)
    assert jnp.abs(aj.schedule_free_eval_params(state, params)).max() < 0.3
