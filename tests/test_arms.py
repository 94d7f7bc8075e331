import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from made_up import arm

from adamw_jax import sweep, timescale_from_per_step
from experiments.training import arms
from experiments.training.arms import ADAM, ADAMW, L2, PER_STEP, TIMES_RATE, Arm
from experiments.training.models import MLP


def test_the_two_conventions_of_a_decay_are_the_same_run_where_they_mean_the_same():
    times_rate, per_step = Arm(TIMES_RATE, 1.0, 0.5), Arm(PER_STEP, 0.5, 0.5)
    assert times_rate.decay_per_step == per_step.decay_per_step == 0.5
    assert times_rate.weight_decay == per_step.weight_decay == 1.0
    assert arms.grid([Arm(ADAM, 0.0, 0.5), Arm(TIMES_RATE, 0.0, 0.5), times_rate, per_step]) == (
        {"l2": 0.0, "weight_decay": 0.0, "learning_rate": 0.5},
        {"l2": 0.0, "weight_decay": 1.0, "learning_rate": 0.5},
    )
    assert (Arm(L2, 0.1, 0.5).l2, Arm(L2, 0.1, 0.5).weight_decay) == (0.1, 0.0)


def test_the_timescale_of_a_decay_is_that_of_the_papers():
    """Fashion-MNIST, batch 128: weight_decay 0.01 at α = 0.001 remembers 213 epochs."""
    timescale = timescale_from_per_step(arm(ADAMW, 0.01).decay_per_step, 468)
    assert timescale == pytest.approx(213.7, abs=0.1)


def test_measurements_are_a_row_for_each_arm_seed_and_evaluation_and_nan_from_divergence():
    compared = [arm(ADAM), arm(TIMES_RATE, 1.0), arm(PER_STEP, 0.001)]

    def result(run, row):
        diverged = row["weight_decay"] > 0 and row["seed"] == 1
        loss = np.arange(2 if diverged else 3, dtype=np.float32) + 10 * run
        status = "diverged" if diverged else "finished"
        advance = np.arange(1, len(loss) + 1)
        return sweep.Result(run, row, advance, {"loss": loss}, status, 1, "cpu", 1.5, 1.0)

    grid = sweep.product(arms.grid(compared), seed=range(2))
    table = arms.table(compared, [result(run, row) for run, row in enumerate(grid)])
    assert table["family"].to_list() == [ADAM] * 6 + [TIMES_RATE] * 6 + [PER_STEP] * 6
    assert table["seed"].to_list() == [0, 0, 0, 1, 1, 1] * 3
    assert table["evaluation"].to_list() == [1, 2, 3] * 6
    same = [20, 21, 22, 30, np.nan, np.nan]
    np.testing.assert_array_equal(table["loss"], [0, 1, 2, 10, 11, 12, *same, *same])
    assert table["status"].to_list()[9:12] == ["diverged"] * 3


@pytest.mark.parametrize("floor", [0.0, 0.1, 1.0])
def test_schedules_are_numbers_of_one_program(floor):
    (row,) = arms.grid([arm(ADAM)._replace(learning_rate=0.5)])
    tx = arms.scheduled({**row, "first_cycle": 70, "floor": floor})
    state, rates = tx.init(1.0), []
    for _ in range(70):
        update, state = tx.update(1.0, state, 1.0)
        rates.append(-float(update))  # Adam's step is 1 while the gradient is
    expected = floor + (1 - floor) * (0.5 + 0.5 * np.cos(np.pi * np.arange(70) / 70))
    np.testing.assert_allclose(rates, 0.5 * expected, rtol=1e-4, atol=1e-6)


def test_mups_rates_are_those_of_the_matrices_after_the_first_and_all_decay_alike():
    params = nnx.state(MLP([3, 4, 4, 2], rngs=nnx.Rngs(0)), nnx.Param)
    h = {"learning_rate": 0.01, "timescale": 2.0}

    def step(gradient, inner):
        optimizer = arms.with_timescale(10, 3, h, inner=inner)
        gradients = jax.tree.map(lambda x: jnp.full_like(x, gradient), params)
        return optimizer.update(gradients, optimizer.init(params), params)[0]

    whole, fourth, decay = (step(*each) for each in ((1.0, 1.0), (1.0, 0.25), (0.0, 0.25)))
    flat = zip(*map(jax.tree.leaves_with_path, (params, whole, fourth, decay)), strict=True)
    for (path, param), (_, one), (_, quarter), (_, left) in flat:
        factor = 0.25 if "kernel" in str(path) and "0" not in str(path[1]) else 1.0
        np.testing.assert_allclose(left, -param / 20, atol=1e-6)  # in all 2 epochs of 10 steps
        np.testing.assert_allclose(quarter - left, factor * (one - left), rtol=1e-4)
