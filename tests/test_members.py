from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest

from experiments.command_line import main
from experiments.harness import settings
from experiments.harness.settings import SettingsError
from experiments.members import report, stages
from experiments.members.members import BASE, MEMBERS, optimizer
from experiments.members.settings import Settings
from experiments.tuning.measures import ACCURACY, CALIBRATED

CONFIG = settings.read(Path("configs/members.toml"))


def config(**changes):
    return settings.build(Settings, {"given": (CONFIG | changes, False)})


def test_all_members_try_the_same_decays_per_step_and_learning_rates_in_their_ranges():
    base = stages.trials(BASE, config())
    for name, member in MEMBERS.items():
        for ours, theirs in zip(stages.trials(name, config()), base, strict=True):
            rate = ours.arm.learning_rate
            assert rate == pytest.approx(member.times * theirs.arm.learning_rate, rel=0.06)
            assert rate * ours.arm.decay == pytest.approx(
                theirs.arm.learning_rate * theirs.arm.decay, rel=0.12
            )  # both were rounded to two digits


@pytest.mark.parametrize("name", MEMBERS)
def test_without_a_gradient_a_member_takes_away_the_decay_per_step(name):
    params = {"layers": [{"kernel": jnp.full((8, 8), 2.0), "bias": jnp.ones(8)}] * 2}
    told = stages.training(100, [8])
    tx = optimizer(MEMBERS[name], told, {"learning_rate": 0.01, "weight_decay": 0.5})
    still = jax.tree.map(jnp.zeros_like, params)
    updates, _ = tx.update(still, tx.init(params), params)
    first = 1 / 5 if name == "schedule_free_adamw" else 1  # of five steps of warm-up
    jax.tree.map(
        lambda u, p: np.testing.assert_allclose(u, -0.005 * first * p, rtol=1e-5), updates, params
    )


def scores(leads, seeds=16):
    """Fresh runs of members that lead AdamW by some points, with a little noise."""
    noise = np.random.default_rng(0).normal(0, 0.1, (len(leads), seeds))
    rows = [
        {
            "task": "right labels", "stage": "fresh", "read": "stopped", "family": name,
            "decay": 1.0 / MEMBERS[name].times, "learning_rate": 2e-4 * MEMBERS[name].times,
            "epochs": 20, "seed": seed, "measure": measure, "epoch": 4, "validation": 0.0,
            "test": 85 + seed / 10 + lead + noise[i, seed] if measure == ACCURACY else -0.5,
        }
        for i, (name, lead) in enumerate(leads.items())
        for seed in range(seeds)
        for measure in (ACCURACY, CALIBRATED)
    ]  # fmt: skip
    return pl.DataFrame(rows)


def made(leads):
    asked = config(members=[BASE, *leads], noises=[0.0])
    return report.summarize(asked, scores({BASE: 0.0} | leads))


def test_a_member_that_is_better_is_named_and_the_table_is_sorted():
    found = made({"sgdw": -1.0, "lion": 0.6, "adopt": 0.0})
    finding, worse, alike, _ = found.findings
    assert finding.startswith("Better than adamw with right labels: lion (+0.")
    assert worse.startswith("Worse with right labels: sgdw (−")
    assert alike.startswith("Different by too little to matter with right labels: adopt (")
    summary, details = found.tables
    assert [row[0] for row in summary.rows] == ["lion", "adopt", "sgdw"]
    assert [row[3] for row in summary.rows] == ["better", "negligible", "worse"]
    assert summary.rows[0][-1] == "4.00"
    assert [row[0] for row in details.rows] == [BASE, "lion", "adopt", "sgdw"]
    assert {row[-1] for row in details.rows} == {"α low"}  # as was made up
    assert found.figures[0].title == finding.removesuffix(".")


def test_if_none_is_better_the_largest_lead_is_told():
    found = made({"sgdw": -2.0, "adopt": 0.0})
    finding, *_, largest = found.findings
    assert finding == "No member is shown to be better than adamw by as much as matters."
    assert largest.startswith("The largest lead with right labels: adopt (+0.")
    (axis,) = found.figures[0].figure.axes
    (number,) = (text.get_text() for text in axis.texts)  # of the lead that leaves the picture
    assert number.startswith(("← −2.", "← −1.9"))
    assert axis.get_xlim()[0] > -1.2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"members": ["adamw", "lyon"]}, "no member is called 'lyon'; did you mean 'lion'?"),
        ({"members": ["lion", "adamw"]}, "the first is adamw"),
        ({"members": ["adamw"]}, "at least one and each once"),
        ({"every": 3}, "every = 3 does not divide 16"),
        ({"weight_decays": [1.0, 0.1]}, "weight_decays = 1 0.1 is no range"),
        ({"seeds": 2000}, "first_tuning_seed = 1000 is one of the fresh seeds"),
    ],
)
def test_settings_that_cannot_be(changes, message):
    with pytest.raises(SettingsError) as error:
        config(**changes)
    assert message in str(error.value)


@pytest.mark.slow
def test_from_trials_to_a_report_which_kept_runs_repeat(programs, tmp_path, capsys):
    tiny = {
        "data": "digits", "validation": 0.25, "images": 300, "noises": "0.3", "hidden": "16",
        "batch-size": 32, "epochs": 4, "every": 2, "members": "adamw schedule_free_adamw",
        "learning-rates": "1e-3 1e-1", "trials": 3, "promoted": 2, "tuning-seeds": 2, "seeds": 3,
    }  # fmt: skip
    options = [word for key, value in tiny.items() for word in (f"--{key}", *str(value).split())]
    assert main(["members", "--output", str(tmp_path / "one"), *options]) == 0
    said = capsys.readouterr().out.splitlines()[1]
    runs = pl.read_csv(tmp_path / "one" / "results.csv")
    assert runs.select("family", "stage", "learning_rate", "seed").unique().height == 2 * (
        3 + 2 + 3
    )
    fresh = runs.filter(
        pl.col("stage") == "fresh", pl.col("read") == "stopped", pl.col("measure") == "accuracy"
    )
    assert fresh["test"].min() > 60  # the averaged parameters, too, have learnt
    kept = ["--output", str(tmp_path / "two"), "--kept", str(tmp_path / "one")]
    assert main(["members", *kept, *options]) == 0
    assert capsys.readouterr().out.splitlines()[1] == said
    tables = [(tmp_path / folder / "tables.md").read_text() for folder in ("one", "two")]
    assert tables[0] == tables[1]
