"""The best timescale: real runs on digits, and choices and fits where the answer is known."""

import csv
import itertools
import math

import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest

from experiments import command_line as cli
from experiments.harness import curves, data
from experiments.timescale import law, report
from experiments.timescale.law import LAW, Cell, Choice, Law
from experiments.training import arms
from experiments.training.scores import ERROR, LOSS

SMALL = [
    "timescale", "--data", "digits", "--images", "64", "128", "--batch-sizes", "8", "32",
    "--learning-rates", "0.001", "0.004", "--timescales", "0.5", "1", "2", "--hidden", "8",
    "--epochs", "1", "--seeds", "2",
]  # fmt: skip
TAUS = [0.25, 1.0, 4.0, 16.0, 64.0, 256.0, 1024.0]
STEP = math.log(TAUS[-1] / TAUS[0]) / (curves.FINE - 1)  # how finely log τ is known
CELLS = [
    Cell(images, batch, images // batch, (0.001 * batch**0.5, 0.002 * batch**0.5))
    for images in (1024, 4096)
    for batch in (16, 64)
]


def runs(log_tau, cells=CELLS, seeds=3):
    """Made-up runs whose loss is a parabola over log τ, with its least value at `log_tau(…)`."""
    return pl.DataFrame(
        [
            {
                "images": cell.images,
                "batch_size": cell.batch_size,
                "learning_rate": rate,
                "timescale": tau,
                "seed": seed,
                "validation_calibrated_loss": 0.1 * seed
                + (1.0 if tau == math.inf else 0.01 * (math.log(tau) - log_tau(cell, rate)) ** 2),
                "validation_accuracy": 0.5,
            }
            for cell in cells
            for rate in cell.rates
            for tau in [*TAUS, math.inf]
            for seed in range(seeds)
        ]
    ).sample(fraction=1, shuffle=True, seed=0)


def fitted(log_tau):
    scored = law.scores(runs(log_tau), LOSS, CELLS)
    return scored, Law.of(scored, CELLS, TAUS)


@pytest.mark.slow
def test_every_run_is_in_the_data_and_what_is_kept_makes_the_same_report(
    tmp_path, monkeypatch, capsys
):
    first, again = tmp_path / "first", tmp_path / "again"
    assert cli.main([*SMALL, "--output", str(first)]) == 0
    assert "AdamW's best timescale in epochs is " in capsys.readouterr().out
    with (first / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 2 * 4 * 2
    assert len({(row["images"], row["batch_size"], row["seed"]) for row in rows}) == 4 * 2
    assert {float(row["timescale"]) for row in rows} == {0.5, 1, 2, math.inf}
    assert {float(row["learning_rate"]) for row in rows} == {0.001, 0.002, 0.004, 0.008}
    assert all(0 < float(row["validation_calibrated_loss"]) < 3 for row in rows)
    assert {path.name for path in (first / "sweeps").iterdir()} == {
        f"{images}-images-batch-{batch}" for images in (64, 128) for batch in (8, 32)
    }

    monkeypatch.delattr(data, "load")
    assert cli.main([*SMALL, "--kept", str(first), "--output", str(again)]) == 0
    assert (again / "tables.md").read_text() == (first / "tables.md").read_text()
    assert (again / "timescale.svg").exists()


@pytest.mark.parametrize("rate", [0.001, 0.1])
@pytest.mark.parametrize(("tau", "left"), [(2.0, 1 - 1 / 20), (0.1, 0.0), (math.inf, 1.0)])
def test_the_first_step_takes_one_over_tau_times_the_steps_of_an_epoch(tau, left, rate):
    optimizer = arms.with_timescale(10, 3, {"timescale": jnp.float32(tau), "learning_rate": rate})
    params = jnp.float32([1, -2])
    updates, _ = optimizer.update(jnp.zeros(2), optimizer.init(params), params)
    np.testing.assert_allclose(params + updates, left * params, atol=1e-6)


def test_the_optimum_is_that_of_the_smooth_curve_and_never_beyond_the_grid():
    x = np.log(TAUS)
    for at in 0.1, 1.5, 3.9:
        assert curves.optimum((x - at) ** 2, TAUS) == pytest.approx(at, abs=STEP)
    ends = np.stack([x, -x, np.zeros(len(x))])
    np.testing.assert_array_equal(curves.optimum(ends, TAUS), [x[0], x[-1], x[0]])
    falling = np.array([9.0, 5, 2, 1, 0.6, 0.51, 0.5])  # the smooth curve dips before its end
    assert curves.optimum(falling, TAUS) == x[-1]
    # One steep side does not push the optimum away from two scores that are equal.
    steep = np.array([9.0, 9, 1, 0, 0, 1, 1])
    assert x[3] < curves.optimum(steep, TAUS) < x[4]


@pytest.mark.parametrize(
    "exponents", [(0, 0, 0), (1, -1, -1), (0.25, -0.75, 0), (0, -0.75, -1)], ids=str
)
def test_the_law_that_made_the_best_timescales_is_found(exponents):
    def log_tau(cell, rate):
        logs = np.log([cell.batch_size / 32, cell.images / 2048, rate / 0.008])
        return math.log(4) + np.dot(exponents, logs)

    _, fit = fitted(log_tau)
    np.testing.assert_allclose(fit.exponents, exponents, atol=STEP)
    # All seeds agree on where the least is.
    np.testing.assert_allclose([fit.low, fit.high], [exponents] * 2, atol=STEP)
    verdict = "about" if not any(exponents) else "not"
    assert f"is {verdict} the same for all" in report.answer(fit, CELLS)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        ((-0.1, 0.1, -2), (0.1, 0.4, -1), "about the same"),  # whatever α does
        ((-0.1, -0.9, 0), (0.1, -0.6, 0), "not the same"),
        ((-0.1, 0.1, 0), (0.1, 0.7, 0), "not the same"),
        ((-0.1, -0.8, 0), (0.1, 0.1, 0), "perhaps not the same"),
    ],
)
def test_the_same_is_within_a_factor_of_two(low, high, verdict):
    """Batch sizes and images vary by 4 here, so that an exponent of a half is a factor of 2."""
    middle = np.add(low, high) / 2
    law = Law(middle, np.array(low), np.array(high), np.zeros(8), np.zeros(8))
    assert f"is {verdict} for all: with 4 times the batch size" in report.answer(law, CELLS)


@pytest.mark.parametrize(
    ("rule", "constant", "log_tau"),
    [
        ("one τ", 7.0, lambda cell, rate: math.log(7)),
        ("one λ", 2.0, lambda cell, rate: -math.log(2 * rate * cell.steps)),
        ("one decay per step", 0.004, lambda cell, rate: -math.log(0.004 * cell.steps)),
    ],
)
def test_the_rule_that_holds_costs_least_and_its_constant_is_found(rule, constant, log_tau):
    scored, fit = fitted(log_tau)
    cost = law.costs(scored, fit, CELLS, TAUS)
    others = cost.keys() - {rule, LAW}
    assert all(cost[rule].mean < cost[other].mean / 2 for other in others)
    assert f"{rule} for all costs least in this sample" in report.price(cost)
    assert cost[rule].constant == pytest.approx(constant, rel=0.05)
    assert cost[rule].most >= cost[rule].mean >= 0


def test_a_cost_is_the_score_above_the_least_of_each_curve():
    curves = np.array([[5.0, 3, 4], [1, 2, 9]])
    x = np.array([0.0, 1, 2])
    assert law.cost(curves, x, np.array([1.0, 0])) == pytest.approx((0, 0, 0))
    # The best of one place for both: at 0 it costs 2 and 0, at 1 it costs 0 and 1.
    assert law.cost(curves, x, np.zeros(2)) == pytest.approx((1, 0.5, 1), abs=1e-2)


def test_seeds_that_disagree_widen_the_intervals():
    made = runs(lambda cell, rate: math.log(4), seeds=4)
    moved = made.with_columns(
        validation_calibrated_loss=pl.col("validation_calibrated_loss")
        + 0.02 * pl.col("timescale").clip(0, 1024).log() * (pl.col("seed") - 1.5)
    )
    fit = Law.of(law.scores(moved, LOSS, CELLS), CELLS, TAUS)
    # Not for α: in a cell, all α have the same seeds.
    assert (fit.low[:2] < -0.05).all() and (fit.high[:2] > 0.05).all()
    np.testing.assert_allclose(fit.exponents, 0, atol=STEP)  # on average they agree


def test_in_a_cell_rate_and_timescale_are_chosen_together_and_others_may_be_as_good():
    seeds = np.array([-1.0, 0, 1])
    curve = np.array([[9.0] * 3, [3.0] * 3, 3.01 + 0.05 * seeds, [9.0] * 3, 3.02 - 0.05 * seeds])
    scored = np.stack([curve + 1, curve, curve + 2]) + 10 * seeds  # a level for each seed
    choice = Choice.of(scored, [1.0, 10.0, 100.0, 1000.0])
    assert choice.rate == 1
    assert 10 < choice.timescale < 100
    np.testing.assert_allclose(choice.curve, [9, 3, 3.01, 9, 3.02])
    assert choice.near.tolist() == [False, True, True, False, True]


def test_a_run_that_diverged_counts_as_a_guess():
    made = runs(lambda cell, rate: 0.0)
    metrics = "validation_calibrated_loss", "validation_accuracy"
    diverged = made.with_columns(
        pl.when(pl.col("timescale") == TAUS[0]).then(math.nan).otherwise(pl.col(name)).alias(name)
        for name in metrics
    )
    loss, error = (law.scores(diverged, measure, CELLS) for measure in (LOSS, ERROR))
    assert (loss[:, :, 0] == math.log(10)).all() and (error[:, :, 0] == 90).all()
    assert (error[:, :, 1:] == 50).all()


@pytest.mark.parametrize(
    ("log_tau", "over_batches", "over_images"),
    [
        (lambda cell, rate: math.log(8), "root of batch, same τ = share of run",
         "same τ = share of run"),
        # The same λ for all; its own α would be lost in the three values that α is on.
        (lambda cell, rate: -math.log(3 * rate * cell.steps),
         "root of batch, same λ = normalized decay", "same λ = decay per step"),
    ],
)  # fmt: skip
def test_the_rule_that_made_the_best_timescales_carries_them_over(
    log_tau, over_batches, over_images
):
    batches, images = report.carried_over(runs(log_tau), CELLS)
    for table, rule in (batches, over_batches), (images, over_images):
        assert len(table.rows) == 3
        assert table.rows[0][0] == rule
        assert table.rows[0][3] == "4"  # by which factor it carries over
        down = [float(row[1].split()[0].replace("−", "-")) for row in table.rows]
        assert abs(down[0]) < 0.5 and min(down[1:]) > 2


def test_a_best_timescale_at_an_end_of_the_grid_is_said():
    made = runs(lambda cell, rate: math.log(1e4))
    said = report.summarize(made, CELLS, TAUS).findings[-1]
    assert "In 0 of 4 cells the seeds cannot tell no decay" in said
    assert "On 8 of 8 curves the best τ is at an end" in said


def test_the_scores_are_in_the_order_of_cells_rates_timescales_and_seeds():
    made = runs(lambda cell, rate: math.log(cell.images / cell.batch_size * rate))
    scored = law.scores(made, LOSS, CELLS)
    assert scored.shape == (4, 2, len(TAUS) + 1, 3)
    for (i, cell), rate in itertools.product(enumerate(CELLS), (0, 1)):
        best = math.log(cell.images / cell.batch_size * cell.rates[rate])
        np.testing.assert_allclose(scored[i, rate, :-1, 0], 0.01 * (np.log(TAUS) - best) ** 2)
    np.testing.assert_allclose(scored[:, :, -1], np.broadcast_to([1, 1.1, 1.2], (4, 2, 3)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--images", "64"], "images = 64: Expected `array` of length >= 2"),
        (["--timescales", "1", "2"], "timescales = 1 2: Expected `array` of length >= 3"),
        (["--seeds", "1"], "seeds = '1': Expected `int` >= 2"),
        (["--batch-sizes", "32", "8"], "the values of batch_sizes must increase; got 32 8"),
        (["--images", "64", "5000"], "images = 5000 is more than the 1198 training images"),
        (["--batch-sizes", "8", "100"], "batch_size = 100 is more than the 64 training images"),
        (
            ["--timescales", "0.4", "1", "2"],
            "timescales: 0.4 epochs are less than a step, of which an epoch has 2 with 64 images "
            "in batches of 32",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(options, message, tmp_path, capsys):
    assert cli.main([*SMALL, *options, "--output", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
