"""Which rule carries over: real runs on digits, and costs where the answer is known."""

import csv
import itertools
import math

import numpy as np
import polars as pl
import pytest

from experiments import command_line as cli
from experiments.harness import data
from experiments.scaling import averages, report
from experiments.scaling.cells import Cell, Move, base, design, factors, moves
from experiments.scaling.surfaces import Surfaces, carried, exponents, reach
from experiments.training.scores import ERROR, LOSS

SMALL = [
    "scaling", "--batch-sizes", "16", "32", "--images", "64", "--widths", "4", "--epochs", "1",
    "--b2s", "0.999", "--learning-rates", "0.001", "0.004", "0.016", "--timescales", "0.5", "1",
    "2", "--seeds", "2",
]  # fmt: skip
RATES, TAUS = np.geomspace(1e-4, 1e-1, 7), np.geomspace(0.1, 1000, 7)
SIZES = {"batch_sizes": [16, 32, 64], "images": [512, 1024], "widths": [32, 64]}
CELLS = design(**SIZES, epochs=[10, 20], b2s=[0.99, 0.999])
STEP = math.log(1e4) / 60  # how finely the fine grid knows log τ


def runs(optimum, cells=CELLS, seeds=3, noise=0.0):
    """Made-up runs whose loss is 1 where α and λ are `optimum(cell)`, and grows from there."""
    rng, rows = np.random.default_rng(0), []
    for i, cell in enumerate(cells):
        rate, decay = optimum(cell)
        best = np.log(rate), -np.log(rate * decay * cell.steps)
        for seed, alpha, tau in itertools.product(range(seeds), RATES, TAUS):
            off = np.hypot(math.log(alpha) - best[0], math.log(tau) - best[1])
            rows.append(
                cell._asdict()
                | {"learning_rate": alpha, "timescale": tau, "seed": i * seeds + seed}
                | {"validation_calibrated_loss": 1 + 0.1 * off**2 + noise * rng.normal()}
                | {"validation_accuracy": 0.9 - 0.01 * off**2}
            )
    return pl.DataFrame(rows).sample(fraction=1, shuffle=True, seed=0)


def by_root_and_tau(cell):
    """α ∝ √batch, τ = 8 epochs, whatever the other sizes are."""
    rate = 1e-3 * math.sqrt(cell.batch_size)
    return rate, 1 / (8 * rate * cell.steps)


def costs(optimum, **more):
    surfaces = Surfaces.of(runs(optimum, **more), LOSS, CELLS)
    return surfaces, carried(surfaces, moves(CELLS), relative=True)


@pytest.mark.slow
def test_every_run_is_in_the_data_and_what_is_kept_makes_the_same_report(
    tmp_path, monkeypatch, capsys
):
    first, again = tmp_path / "first", tmp_path / "again"
    assert cli.main([*SMALL, "--output", str(first)]) == 0
    assert "Over batch sizes, " in capsys.readouterr().out
    with (first / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 3 * 3 * 2
    assert len({(row["batch_size"], row["seed"]) for row in rows}) == 2 * 2
    assert all(0 < float(row["validation_calibrated_loss"]) < 3 for row in rows)

    monkeypatch.delattr(data, "load")
    assert cli.main([*SMALL, "--kept", str(first), "--output", str(again)]) == 0
    assert (again / "tables.md").read_text() == (first / "tables.md").read_text()
    assert (again / "scaling.svg").exists()


def test_the_design_has_the_full_grid_and_a_star_of_epochs_and_averages():
    assert len(CELLS) == len(set(CELLS)) == 3 * 2 * 2 + 1 + 3
    assert CELLS[base(CELLS)] == Cell(32, 1024, 64, 20, 0.999)
    assert sum(cell.epochs == 10 for cell in CELLS) == 1
    assert [cell.batch_size for cell in CELLS if cell.b2 == 0.99] == [16, 32, 64]


def test_a_move_changes_one_size_and_every_ordered_pair_is_one():
    found = moves(CELLS)
    for move in found:
        old, new = CELLS[move.old], CELLS[move.new]
        differ = [name for name in Cell._fields if getattr(old, name) != getattr(new, name)]
        assert differ == [move.axis]
        assert getattr(old, move.axis) * move.factor == getattr(new, move.axis)
        assert Move(move.axis, 1 / move.factor, move.new, move.old) in found
    by_axis = {axis: sum(move.axis == axis for move in found) for axis in Cell._fields}
    assert by_axis == {"batch_size": 4 * 6, "images": 6 * 2, "width": 6 * 2, "epochs": 2, "b2": 0}


def test_rules_that_agree_share_a_line_and_no_rule_is_lost():
    old = CELLS[base(CELLS)]
    found = factors(old, old._replace(batch_size=64))
    assert found["root of batch, same τ = share of run"] == pytest.approx((2**0.5, 2**0.5))
    assert found["linear in batch, same λ = τ = share of run"] == (2, 1)
    assert sum(name.count("=") + 1 for name in found) == 3 * 5
    assert len(found) == len(set(found.values()))
    epochs = factors(old, old._replace(epochs=80))
    assert epochs["same share of run"] == (1, 0.25)


def test_the_rule_that_made_the_optima_costs_nothing_and_carries_over():
    surfaces, found = costs(by_root_and_tau)
    made = {
        "batch_size": "root of batch, same τ = share of run",
        "images": "same τ = share of run",
        "width": "same α over widths, same λ = decay per step = τ = share of run"
        " = normalized decay",
        "epochs": "same λ = decay per step = τ",
    }
    for axis, rule in made.items():
        largest = max(found[axis])
        assert report.best(found[axis]) == rule
        assert reach(found[axis], rule, 1.0) == largest
        for by_rule in found[axis].values():
            assert by_rule[rule].interval == pytest.approx((0, 0, 0), abs=0.2)
            np.testing.assert_allclose(by_rule[rule].misses, 1, atol=2 * STEP)
            others = [each.costs[0] for name, each in by_rule.items() if name != rule]
            assert min(others) > 0.5
    assert not surfaces.at_edge.any()


def test_a_cost_is_that_of_the_distance_from_the_optimum():
    _, found = costs(by_root_and_tau)
    # Four times the batch size with α and λ unchanged: log α is off by log 2, log τ by log 4.
    expected = 100 * 0.1 * (math.log(2) ** 2 + math.log(4) ** 2)
    nothing = found["batch_size"][4.0][report.nothing(found["batch_size"])]
    assert nothing.costs[0] == pytest.approx(expected, rel=0.1)
    np.testing.assert_allclose(nothing.misses, [2, 2], rtol=0.2)
    assert (nothing.moves, nothing.beyond) == (4, 0)


def test_the_powers_of_the_optima_are_found():
    powers = exponents(Surfaces.of(runs(by_root_and_tau), LOSS, CELLS))
    expected = {"batch_size": (0.5, 0.5), "images": (0, -1), "width": (0, 0)}
    for axis, both in expected.items():
        np.testing.assert_allclose(powers[axis][0], both, atol=0.15)


def test_seeds_that_disagree_widen_the_intervals_and_no_seed_scores_its_own_choice():
    quiet, loud = (costs(by_root_and_tau, seeds=4, noise=noise)[1] for noise in (0.0, 0.1))
    rule = report.nothing(quiet["width"])
    ends = [found["width"][2.0][rule].interval[1:] for found in (quiet, loud)]
    widths = [high - low for low, high in ends]
    assert widths[1] > widths[0] + 0.5
    # Where all is noise, the optimum of the other seeds is no better than any prediction.
    flat = runs(lambda cell: (3e-3, 1.0), seeds=4).with_columns(
        validation_calibrated_loss=1 + pl.lit(np.random.default_rng(1).normal(size=16 * 196)) / 10
    )
    surfaces = Surfaces.of(flat, LOSS, CELLS)
    best_of_all = surfaces.scores.mean(-1).reshape(len(CELLS), -1).min(-1)
    assert best_of_all.mean() < 0.9 < 0.95 < surfaces.least().mean()


def test_what_is_beyond_the_grid_counts_at_its_edge_and_is_said():
    surfaces, found = costs(lambda cell: (0.09, 0.1))
    assert surfaces.at_edge[:, 0].all()
    up = found["batch_size"][4.0]
    linear = next(rule for rule in up if rule.startswith("linear in batch, same λ"))
    assert up[linear].beyond == up[linear].moves == 4
    said = report.at_ends(surfaces, found)
    assert f"Of {len(CELLS)} optima, {len(CELLS)} are at an end of the grid in α and 0 in τ" in said


def test_a_rule_carries_over_only_as_far_as_all_smaller_factors_up_and_down():
    _, found = costs(by_root_and_tau)
    rule = report.nothing(found["batch_size"])
    by_factor = found["batch_size"]
    at = {f: max(by_factor[f][rule].interval) for f in by_factor}
    assert max(at[2], at[0.5]) < min(at[4], at[0.25])
    assert reach(by_factor, rule, min(at.values()) / 2) == 1
    assert reach(by_factor, rule, (max(at[2], at[0.5]) + min(at[4], at[0.25])) / 2) == 2
    assert reach(by_factor, rule, 2 * max(at.values())) == 4
    one_side = {f: by_factor[4.0] if f == 2 else by_factor[f] for f in by_factor}
    assert reach(one_side, rule, (max(at[2], at[0.5]) + min(at[4], at[0.25])) / 2) == 1


def test_a_run_that_diverged_counts_as_a_guess():
    made = runs(by_root_and_tau).with_columns(
        pl.when(pl.col("learning_rate") == RATES[-1])
        .then(math.nan)
        .otherwise(pl.col(name))
        .alias(name)
        for name in ("validation_calibrated_loss", "validation_accuracy")
    )
    loss, error = (Surfaces.of(made, measure, CELLS) for measure in (LOSS, ERROR))
    np.testing.assert_allclose(loss.scores[:, -1], math.log(10))
    np.testing.assert_allclose(error.scores[:, -1], 90)


def test_the_best_average_is_found_and_what_its_rules_cost():
    made = runs(by_root_and_tau).with_columns(
        # β₂ = 0.99 is best for batches of 64, and 0.999 for the others.
        validation_calibrated_loss=pl.col("validation_calibrated_loss")
        + pl.when((pl.col("b2") == 0.99) == (pl.col("batch_size") == 64)).then(0).otherwise(0.2)
    )
    table, said = averages.compare(Surfaces.of(made, LOSS, CELLS))
    assert "16: 0.999, and the worst costs 20.0 %" in said
    assert "64: 0.99, and the worst costs 20.0 %" in said
    assert "“same averages” 20.0 %" in said
    cells = {row[0]: row[-1] for row in table.rows}
    assert cells["batch 64"] == "0.99" and cells["batch 32"] == "0.999"
    assert cells["batch 64, same half-life"].startswith("0.998001: ")  # 0.999²
    # log(1 − β₂) is 30 % of the way from 0.999 to 0.99, of which the costs are 20 % and none.
    assert cells["batch 64, SDE"] == "0.998: +14.0 %"


def test_a_rule_without_a_value_is_none():
    old = CELLS[base(CELLS)]
    assert averages.predicted(old._replace(b2=0.9), 64)["SDE"] == pytest.approx(0.8)
    assert averages.predicted(old._replace(batch_size=4), 64)["SDE"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--learning-rates", "1", "2"], "learning_rates = 1 2: Expected `array` of length >= 3"),
        (["--seeds", "1"], "seeds = '1': Expected `int` >= 2"),
        (["--widths", "8", "4"], "the values of widths must increase; got 8 4"),
        (["--images", "5000"], "images = 5000 is more than the 1198 training images"),
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
