"""The four small experiments: that they run, and that what they show is so."""

import csv
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from rich.console import Console

from adamw_jax import adam, adam_l2, adamw, chain, gd, momentum_gd
from experiments import batches, bias_correction, decay, surfaces
from experiments.command_line import main, module_of
from experiments.harness import settings
from experiments.harness.context import Context
from experiments.harness.data import Split
from experiments.training.models import MLP

# Command-line overrides with which each takes a second or two, and the files it writes.
SMALL = {
    "batches": (
        "--examples 64 --batch-sizes 64 8 --learning-rates 0.1 --passes 2 --hidden 8 --seeds 1",
        {"losses.csv", "batches.svg", "batches.png"},
    ),
    "surfaces": (
        "--steps 120 --timed-rates 0.05",
        {
            "paths.csv",
            "settled.csv",
            "parabola.svg",
            "parabola.png",
            "paraboloid.svg",
            "paraboloid.png",
        },
    ),
    "bias-correction": (
        "--coordinates 100 --steps 10 --table-steps 1 10",
        {"bias-correction.csv", "bias-correction.svg", "bias-correction.png"},
    ),
    "decay": (
        "--steps 200 --pairs 20 --sweep-scales 0.01 1 --sweep-steps 20",
        {"groups.csv", "sweep.csv", "decay.svg", "decay.png"},
    ),
}


def choose(name, **overrides):
    """The settings of the config file, some of them overridden."""
    module = module_of(name)
    config = settings.read(settings.CONFIGS / f"{name}.toml")
    sources = {"config": (config, False), "test": (overrides, False)}
    return settings.build(module.Settings, sources)


@pytest.fixture
def context(tmp_path):
    return Context(Console(quiet=True), tmp_path, None, False)


@pytest.mark.parametrize("name", SMALL)
def test_writes_report_figures_and_data(name, tmp_path):
    overrides, files = SMALL[name]
    assert main([name, "--output", str(tmp_path), *overrides.split()]) == 0
    assert {path.name for path in tmp_path.iterdir()} == files | {"report.html", "tables.md"}
    for path in tmp_path.glob("*.csv"):
        with path.open() as file:
            assert list(csv.DictReader(file))


@pytest.mark.parametrize("name", SMALL)
def test_help_tells_the_question_and_every_setting(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    module = module_of(name)
    assert module.__doc__.strip() in shown
    for key in settings.keys(module.Settings):
        assert settings.option(key) in shown


@pytest.mark.parametrize("name", SMALL)
def test_config_opens_with_its_command_and_names_the_keys_in_order(name):
    path = settings.CONFIGS / f"{name}.toml"
    module = module_of(name)
    assert path.read_text().startswith(f"# python -m experiments {name}\n")
    assert list(settings.read(path)) == list(settings.keys(module.Settings))


# Batches.


def test_minibatches_come_further_with_the_same_gradients(context):
    chosen = choose("batches", batch_sizes=[1280, 32], learning_rates=[0.2, 1.0], passes=5, seeds=2)
    rows = batches.run(chosen, context).data["losses"]
    assert {max(r["gradients"] for r in rows if r["batch_size"] == b) for b in (1280, 32)} == {6400}
    final = {
        size: min(
            r["training_loss"] for r in rows if (r["batch_size"], r["gradients"]) == (size, 6400)
        )
        for size in (1280, 32)
    }
    assert final[32] < 0.5 * final[1280]
    # All begin with the same weights.
    starts = {(r["seed"], r["training_loss"]) for r in rows if r["gradients"] == 0}
    assert len(starts) == 2


@pytest.mark.parametrize("size", [1, 2, 4])
def test_descent_takes_the_mean_gradient_of_each_batch_in_turn(size):
    graph, params = nnx.split(MLP([3, 2], rngs=nnx.Rngs(0)))
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, 3)), np.array([0, 1, 1, 0])
    shaped = Split(jnp.float32(x.reshape(1, -1, size, 3)), jnp.array(y.reshape(1, -1, size)))
    path = batches.descend(graph, nnx.as_pure(params), shaped, 0.5)

    kernel, bias = (
        np.float64(leaf[...]) for leaf in (params.layers[0].kernel, params.layers[0].bias)
    )
    for batch in np.arange(4).reshape(-1, size):
        logits = x[batch] @ kernel + bias
        error = np.exp(logits) / np.exp(logits).sum(1, keepdims=True) - np.eye(2)[y[batch]]
        kernel = kernel - 0.5 * x[batch].T @ error / size
        bias = bias - 0.5 * error.mean(0)
    np.testing.assert_allclose(path["layers"][0]["kernel"][-1], kernel, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(path["layers"][0]["bias"][-1], bias, rtol=1e-5, atol=1e-6)


def test_the_best_learning_rate_is_not_one_that_diverges():
    last = np.array([[0.5, 0.3], [0.2, 0.4], [np.nan, 0.0]])
    runs = batches.Runs(last[:, :, None], last, 1.0, 1.0)
    assert runs.best == 1
    np.testing.assert_allclose(runs.loss, [0.3])


def test_batch_sizes_must_divide_the_examples(context):
    with pytest.raises(settings.SettingsError, match="multiple of every batch size, 1280, 100"):
        batches.run(choose("batches", batch_sizes=[1280, 100]), context)


# Surfaces.


def test_gradient_descent_is_the_closed_form_and_momentum_overshoots():
    curvatures = jnp.array([1.0, 10.0])
    plain = np.asarray(surfaces.descend(gd(0.03), curvatures, 2.0, 50))
    t = np.arange(51)
    expected = 2 * (1 - 2 * 0.03 * np.array([[1], [10]])) ** t
    np.testing.assert_allclose(plain, expected.T, rtol=1e-4)
    assert plain.min() > 0
    heavy = surfaces.descend(momentum_gd(0.1, 0.9), jnp.ones(1), 1.0, 50)
    # Roots of r² − (1 + β − 2α(1 − β)) r + β: with these a turning pair.
    a, b = 1 + 0.9 - 2 * 0.1 * 0.1, 0.9
    x = [1.0, 1.0 - 2 * 0.1 * 0.1]
    for _ in range(49):
        x.append(a * x[-1] - b * x[-2])
    np.testing.assert_allclose(heavy[:, 0], x, atol=1e-5)
    assert heavy.min() < -0.25


def test_momentum_finishes_sooner_at_small_rates_and_later_at_large_ones(context):
    rows = surfaces.run(choose("surfaces"), context).data["settled"]
    times = {(r["optimizer"], r["learning_rate"]): r["settled"] for r in rows}
    assert times["momentum", 0.01] < times["gradient descent", 0.01]
    assert times["momentum", 0.1] > times["gradient descent", 0.1]


def test_adam_keeps_the_coordinates_together_and_a_fixed_step_does_not():
    curvatures = jnp.array([100.0, 1.0])
    adaptive = np.asarray(surfaces.descend(adam(0.05), curvatures, 1.0, 100))
    np.testing.assert_allclose(adaptive[:, 0], adaptive[:, 1], atol=1e-5)
    fixed = np.asarray(surfaces.descend(gd(0.004), curvatures, 1.0, 100))
    assert abs(fixed[10, 0]) < 1e-3 and fixed[10, 1] > 0.9


@pytest.mark.parametrize(
    ("path", "step"),
    [
        ([0.5, 0.1, -0.1, 0.1], 1),
        ([0.1, 0.5, 0.1], 2),
        ([0.0, 0.1], 0),
        ([0.1, 0.2], np.inf),
        ([0.1, np.nan], np.inf),
    ],
)
def test_settled_is_when_it_stays(path, step):
    assert surfaces.settled(np.array(path)[:, None], 0.1) == step


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"compared_at": 11, "steps": 10}, "compared_at is past the last of 10 steps"),
        ({"fixed_rate": 0.3}, "gradient descent diverges at learning rate 0.3"),
    ],
)
def test_surfaces_refuses(overrides, message, context):
    with pytest.raises(settings.SettingsError, match=message):
        surfaces.run(choose("surfaces", **overrides), context)


# Bias correction.


def test_moments_are_biased_by_the_missing_weights_and_corrected_ones_are_not(context):
    chosen = choose("bias-correction", coordinates=4000, seed=1)
    rows = bias_correction.run(chosen, context).data["bias-correction"]
    truth = {"m": 1.0, "v": 2.0}  # μ, and μ² + σ²
    for r in rows:
        x, _, corrected = r["quantity"].partition("_")
        if x in truth:
            beta = {"m": 0.9, "v": 0.999}[x]
            expected = truth[x] * (1 if corrected else 1 - beta ** r["step"])
            assert abs(r["mean"] - expected) < 5 * r["error"], r
            assert r["error"] < 0.05 * expected


def test_without_correction_the_first_steps_are_too_long(context):
    rows = bias_correction.run(choose("bias-correction", coordinates=50), context).data
    length = {
        name: np.array([r["mean"] for r in rows["bias-correction"] if r["quantity"] == name])
        for name in ("corrected", "uncorrected")
    }
    t = np.arange(1, 51)
    np.testing.assert_allclose(length["corrected"][0], 1, rtol=1e-5)
    np.testing.assert_allclose(length["uncorrected"][0], np.sqrt(10), rtol=1e-4)
    np.testing.assert_allclose(
        length["uncorrected"] / length["corrected"],
        (1 - 0.9**t) / np.sqrt(1 - 0.999**t),
        rtol=1e-4,
    )


def test_outputs_of_the_identity_are_the_gradients():
    gradients = jax.random.normal(jax.random.key(0), (5, 3))
    np.testing.assert_array_equal(bias_correction.outputs(chain(), gradients), gradients)


def test_bias_correction_refuses_table_steps_past_the_end(context):
    with pytest.raises(settings.SettingsError, match="past the last of 20 steps"):
        bias_correction.run(choose("bias-correction", steps=20), context)


def test_bias_correction_refuses_gradients_whose_squares_overflow(context):
    with pytest.raises(settings.SettingsError, match=r"deviation = 3e\+38 are too large"):
        bias_correction.run(choose("bias-correction", deviation=3e38, coordinates=2), context)


# Decay.


def test_adamw_shrinks_all_alike_and_adam_l2_by_the_inverse_of_the_scale(context):
    chosen = choose("decay", pairs=100, steps=1000, sweep_scales=[1.0], sweep_steps=10)
    rows = decay.run(chosen, context).data["groups"]
    left = {(r["optimizer"], r["scale"]): r["remaining"] for r in rows if r["step"] == chosen.steps}
    rate = {key: float(decay.shrink_rate(value, 1000)) for key, value in left.items()}
    nominal = 0.001 * 0.01
    for scale in (0.1, 10.0):
        np.testing.assert_allclose(rate["AdamW", scale], nominal, rtol=0.01)
        np.testing.assert_allclose(rate["Adam+L2", scale], nominal / scale, rtol=0.03)


def test_where_the_decay_outweighs_the_gradient_l2_shrinks_at_full_steps_whatever_it_is():
    def rates(optimizer):
        path = functools.partial(decay.mean_path, optimizer, start=1.0, pairs=20, steps=200)
        scales = jnp.array([1e-4, 3.0])
        paths = jax.jit(jax.vmap(lambda scale: path(scale, key=jax.random.key(0))))(scales)
        return decay.shrink_rate(paths[:, -1], 200)

    small, large = (np.array([rates(adam_l2(1e-3, l2=x)), rates(adamw(1e-3, weight_decay=x))])
                    for x in (0.01, 0.1))  # fmt: skip
    full_step = 0.001  # α/θ
    for l2 in small[0, 0], large[0, 0]:
        assert 0.9 * full_step < l2 < 1.2 * full_step
    np.testing.assert_allclose(large[0, 0], small[0, 0], rtol=0.01)
    np.testing.assert_allclose(large[0, 1], 10 * small[0, 1], rtol=0.02)
    np.testing.assert_allclose(large[1], 10 * small[1], rtol=0.01)


def test_shrink_rate_undoes_the_shrinking():
    np.testing.assert_allclose(decay.shrink_rate(0.99**7, 7), 0.01, rtol=1e-12)
    assert np.isnan(decay.shrink_rate(np.float64(-0.1), 7))
