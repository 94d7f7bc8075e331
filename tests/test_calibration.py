import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from experiments.training import calibration
from experiments.training.calibration import LARGEST

compiled = jax.jit(calibration.temperature)


def temperature(logits, labels):
    return float(compiled(logits, labels))


def loss(logits, labels):
    """Mean cross-entropy in float64."""
    return -log_softmax(np.float64(logits), -1)[np.arange(len(labels)), labels].mean()


def best(logits, labels):
    """The best temperature, by another way."""
    found = minimize_scalar(
        lambda log_t: loss(np.float64(logits) / np.exp(log_t), labels),
        bounds=(-np.log(LARGEST), np.log(LARGEST)),
        method="bounded",
        options={"xatol": 1e-9},
    )
    return np.exp(found.x)


def drawn(scale, n=500, seed=0):
    """Logits `scale` times as large as those by which their labels are drawn."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, 10))
    labels = np.array([rng.choice(10, p=p) for p in softmax(logits, -1)])
    return np.float32(scale * logits), labels


@pytest.mark.parametrize("scale", [0.1, 0.5, 1, 4, 20])
def test_it_is_the_temperature_that_a_minimizer_finds(scale):
    logits, labels = drawn(scale)
    assert temperature(logits, labels) == pytest.approx(best(logits, labels), rel=2e-5)
    assert temperature(logits, labels) == pytest.approx(scale, rel=0.2)


def test_logits_that_are_multiplied_multiply_it():
    logits, labels = drawn(1)
    once = temperature(logits, labels)
    for factor in 0.25, 3.0:
        assert temperature(factor * logits, labels) == pytest.approx(factor * once, rel=2e-5)


def test_logits_of_an_image_that_are_shifted_leave_it():
    logits, labels = drawn(1)
    shift = np.float32(np.random.default_rng(1).normal(size=(len(logits), 1)))
    shifted = temperature(logits + shift, labels)
    assert shifted == pytest.approx(temperature(logits, labels), rel=2e-5)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("scale", [1e-3, 0.3, 1, 10, 1e3])
def test_calibrating_never_raises_the_loss_that_it_was_fitted_to(scale, seed):
    logits, labels = drawn(scale, n=20, seed=seed)
    calibrated = logits / temperature(logits, labels)
    assert loss(calibrated, labels) <= loss(logits, labels) * (1 + 1e-6)
    np.testing.assert_array_equal(calibrated.argmax(-1), logits.argmax(-1))


def test_lanes_of_a_vmap_are_fitted_each_on_its_own():
    pairs = [drawn(scale) for scale in (0.5, 3)]
    lanes = jax.jit(jax.vmap(calibration.temperature))(*map(jnp.stack, zip(*pairs, strict=True)))
    np.testing.assert_allclose(lanes, [temperature(*pair) for pair in pairs], rtol=2e-5)


@pytest.mark.parametrize("n", [10, 10_000])
def test_images_that_are_all_right_and_very_sure_get_the_least(n):
    """Also where the loss is lost in rounding at every temperature."""
    rng = np.random.default_rng(0)
    labels, logits = rng.integers(0, 10, n), rng.normal(size=(n, 10))
    logits[np.arange(n), labels] += 10
    for scale in 1, 10, 100:
        found = temperature(np.float32(scale * logits), labels)
        assert found == pytest.approx(1 / LARGEST, rel=1e-5)


def test_images_that_are_all_wrong_get_the_largest():
    logits, _ = drawn(1)
    assert temperature(logits, logits.argmin(-1)) == pytest.approx(LARGEST, rel=1e-5)


def test_where_every_temperature_fits_as_well_it_is_the_least():
    logits = np.full((4, 10), np.float32(1.7))
    assert temperature(logits, np.arange(4)) == pytest.approx(1 / LARGEST, rel=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", ["right class", "another class"])
def test_it_is_nan_if_a_logit_is_not_finite(value, place):
    logits, labels = drawn(1)
    logits[3, labels[3] if place == "right class" else labels[3] - 1] = value
    assert np.isnan(temperature(logits, labels))


def test_it_is_nan_without_images():
    assert np.isnan(temperature(np.zeros((0, 10), np.float32), np.zeros(0, np.int32)))
