import csv

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from adamw_jax import sweep
from experiments.command_line import main
from experiments.precision import report
from experiments.precision.report import Compared
from experiments.precision.ways import BASE, WAYS, bytes_each, kept_in, optimizer
from experiments.training.models import MLP

NUMBERS = {"learning_rate": 1e-3, "weight_decay": 0.1, "bits": 0}


def network(*, rngs):
    return MLP([64, 128, 10], rngs=rngs)


def result(way, seed, accuracy):
    settings = NUMBERS | {"way": way, "seed": seed}
    metrics = {"test_accuracy": np.array([accuracy]), "train_loss": np.array([0.5])}
    return sweep.Result(0, settings, np.array([1]), metrics, "finished", 1, "cpu", 1.0, 1.0)


def compared(leads):
    """Ways that lead by some points, with a little noise."""
    base = [result(BASE, seed, 0.8 + 0.01 * seed) for seed in range(8)]
    ways = {BASE: 0.0} | leads
    return {
        1e-3: [
            Compared.of(
                name,
                [
                    result(name, s, 0.8 + 0.01 * s + (lead + 0.05 * (-1) ** s) / 100)
                    for s in range(8)
                ],
                base,
                (4.0, 8.0),
            )
            for name, lead in ways.items()
        ]
    }


def test_what_costs_accuracy_is_named_with_its_number():
    made = report.summarize(compared({"narrow": -1.5, "mended": 0.02, "more": 0.9}), 8, 0.2)
    assert made.findings == [
        "Worse than float32: narrow, at α = 0.001 (−1.50 points). All else changes test accuracy "
        "by at most 0.90 points."
    ]
    assert [row[5] for row in made.tables[0].rows] == ["", "worse", "as good", "better"]
    assert made.figures[0].title == made.findings[0].removesuffix(".")
    assert len(made.data["results"]) == 32
    nothing = report.summarize(compared({"mended": 0.02}), 8, 0.2)
    assert nothing.findings == ["No way changes test accuracy by more than 0.02 points."]


def test_every_way_keeps_what_it_says_and_takes_a_step():
    bytes_of = {name: sum(bytes_each(way, network, NUMBERS)) for name, way in WAYS.items()}
    assert bytes_of[BASE] == pytest.approx(12, abs=0.01)
    # The last layer and the biases are small, and their moments stay in float32.
    for name, least in {"moments in 8 bits": 6.06, "the same, moments in 8 bits": 6.06}.items():
        assert least < bytes_of[name] < 7
    for way in WAYS.values():
        module = kept_in(way.params, network, rngs=nnx.Rngs(0))
        params = nnx.as_pure(nnx.state(module, nnx.Param))
        assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(way.params)}
        assert module(jnp.ones((2, 64))).dtype == jnp.float32
        tx = optimizer(way, 10, NUMBERS)
        grads = optax.tree.full_like(params, 0.1)
        updates, _ = tx.update(grads, tx.init(params), params)
        moved = optax.apply_updates(params, updates)
        assert optax.tree.norm(optax.tree.sub(moved, params)) > 0


@pytest.mark.slow
def test_parameters_rounded_to_nearest_learn_less_and_a_second_look_costs_nothing(tmp_path, capsys):
    small = "--data digits --images 0 --hidden 32 --epochs 3 --batch-size 64 --seeds 2"
    arguments = ["precision", "--output", str(tmp_path), *small.split()]
    assert main(arguments) == 0
    first = capsys.readouterr().out
    with (tmp_path / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    loss = {
        way: np.mean([float(row["train_loss"]) for row in rows if row["way"] == way])
        for way in WAYS
    }
    assert loss.pop("parameters in bfloat16, to nearest") > 1.03 * loss[BASE]
    assert [*loss.values()] == pytest.approx([loss[BASE]] * len(loss), rel=1e-2)
    again = [*arguments[:2], str(tmp_path / "again"), *arguments[3:], "--kept", str(tmp_path)]
    assert main(again) == 0
    assert "Worse than float32" in first
    # A slow machine says how long the sweeps took, which what was kept does not.
    found = [line for line in first.splitlines()[2:-1] if " runs in " not in line]
    assert found[0] in capsys.readouterr().out
