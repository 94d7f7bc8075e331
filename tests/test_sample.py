import functools

import jax
import numpy as np
import pytest
from scipy import stats

from experiments.harness import data
from experiments.harness.settings import SettingsError
from experiments.training import sample as module
from experiments.training.sample import CLASSES, Sample, sample

LABELS = np.int32(np.random.default_rng(0).integers(0, CLASSES, 1000))
SIZE = Sample(train=600, validation=250, wrong=180)
draw = jax.jit(module.draw, static_argnums=0)


def drawn(seed, size=SIZE):
    return jax.device_get(draw(size, jax.random.key(seed), LABELS))


def test_training_and_validation_images_do_not_overlap():
    train, labels, validation = drawn(0)
    assert (len(train), len(labels), len(validation)) == (600, 600, 250)
    both = np.concatenate([train, validation])
    assert len(np.unique(both)) == 850 and both.min() >= 0 and both.max() < 1000


def test_all_images_can_be_drawn_and_none_held_out():
    train, labels, validation = drawn(0, Sample(1000))
    np.testing.assert_array_equal(np.sort(train), np.arange(1000))
    np.testing.assert_array_equal(labels, LABELS[train])
    assert len(validation) == 0


def test_a_seed_draws_the_same_again_and_another_seed_draws_others():
    for once, again, other in zip(drawn(1), drawn(1), drawn(2), strict=True):
        np.testing.assert_array_equal(once, again)
        assert (once != other).mean() > 0.5


def test_every_image_is_as_likely_to_be_trained_on_to_be_held_out_and_to_be_labelled_wrong():
    """The number of times among 400 draws is binomial, for each image."""
    keys = jax.random.split(jax.random.key(0), 400)
    train, labels, validation = jax.vmap(lambda key: draw(SIZE, key, LABELS))(keys)
    wrong = np.asarray(train)[np.asarray(labels) != LABELS[train]]
    for chosen in map(np.ravel, (train, validation, wrong)):
        share = len(chosen) / 400 / 1000
        counts = np.bincount(chosen, minlength=1000)
        spread = ((counts - 400 * share) ** 2 / (400 * share * (1 - share))).sum()
        assert 1e-3 < stats.chi2(1000).cdf(spread) < 1 - 1e-3


@pytest.mark.parametrize("wrong", [0, 1, 180, 600])
def test_as_many_labels_are_wrong_as_asked(wrong):
    train, labels, _ = drawn(3, SIZE._replace(wrong=wrong))
    assert (labels != LABELS[train]).sum() == wrong
    assert labels.min() >= 0 and labels.max() < CLASSES


def test_wrong_labels_spread_evenly_over_the_other_nine():
    train, labels, _ = drawn(4, Sample(1000, wrong=1000))
    shift = (labels - LABELS[train]) % CLASSES
    counts = np.bincount(shift, minlength=CLASSES)
    assert counts[0] == 0 and stats.chisquare(counts[1:]).pvalue > 0.01


def test_lanes_of_a_vmap_draw_what_single_runs_draw():
    keys = jax.random.split(jax.random.key(0), 3)
    lanes = jax.jit(jax.vmap(functools.partial(module.draw, SIZE), (0, None)))(keys, LABELS)
    for i, key in enumerate(keys):
        for lane, single in zip(lanes, draw(SIZE, key, LABELS), strict=True):
            np.testing.assert_array_equal(lane[i], single)


def test_more_images_than_there_are_cannot_be_drawn():
    with pytest.raises(ValueError, match=r"Sample\(train=800, validation=201.*the 1000 images"):
        drawn(0, Sample(800, 201))


@pytest.mark.parametrize(
    ("asked", "size"),
    [
        ({}, Sample(1438)),
        ({"validation": 0.25}, Sample(1078, 360)),
        ({"validation": 0.25, "images": 500, "noise": 0.3}, Sample(500, 360, 150)),
        ({"noise": 1.0}, Sample(1438, 0, 1438)),
        ({"images": 1438}, Sample(1438)),
    ],
)
def test_a_sample_is_counted_from_fractions(asked, size):
    assert sample(data.SIZES["digits"].images, **asked) == size


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"validation": 0.0001}, "0.0001 splits 1438 images into 1438 to train on and 0 held out"),
        ({"validation": 0.9999}, "0.9999 splits 1438 images into 0 to train on and 1438 held out"),
        ({"validation": 0.25, "images": 1079}, "images = 1079 is more than the 1078 training"),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_its_numbers(asked, message):
    with pytest.raises(SettingsError, match=message):
        sample(data.SIZES["digits"].images, **asked)
