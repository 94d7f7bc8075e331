"""Prints the benchmark tables, as Markdown for documents: `python -m benchmarks`."""

import argparse
from collections.abc import Callable
from pathlib import Path

from benchmarks import (
    accuracy,
    encodings,
    growth,
    kernels,
    members,
    precision,
    searches,
    training,
    updates,
)
from experiments.harness import report
from experiments.harness.devices import use_every_core

BENCHMARKS: dict[str, Callable[[Path | None], list[report.Table]]] = {
    "accuracy": lambda _: accuracy.tables(),
    "updates": lambda _: updates.tables(),
    "kernels": lambda _: kernels.tables(),
    "training": training.tables,
    "encodings": lambda _: encodings.tables(),
    "precision": lambda _: precision.tables(),
    "searches": lambda _: searches.tables(),
    "growth": lambda _: growth.tables(),
    "members": lambda _: members.tables(),
}


def main() -> None:
    """Runs the benchmarks that are asked for; by default all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", choices=list(BENCHMARKS), help="[all]")
    parser.add_argument("--data-dir", type=Path, help="directory of data sets [$ADAMW_JAX_DATA]")
    options = parser.parse_args()
    for name in [options.only] if options.only else BENCHMARKS:
        for table in BENCHMARKS[name](options.data_dir):
            print(report.markdown(table) + "\n", flush=True)
    about = report.facts(
        "python -m benchmarks" + (f" --only {options.only}" if options.only else "")
    )
    print("\n".join(f"{k}: {v}" for k, v in about.items()))


if __name__ == "__main__":
    use_every_core()
    main()
