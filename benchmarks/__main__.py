"""Prints the benchmark tables: `python -m benchmarks`."""

import argparse
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from benchmarks import accuracy, encodings, growth, precision, searches, training, updates
from experiments.harness import report
from experiments.harness.devices import use_every_core

BENCHMARKS: dict[str, Callable[[Path | None], list[report.Table]]] = {
    "accuracy": lambda _: accuracy.tables(),
    "updates": lambda _: updates.tables(),
    "training": training.tables,
    "encodings": lambda _: encodings.tables(),
    "precision": lambda _: precision.tables(),
    "searches": lambda _: searches.tables(),
    "growth": lambda _: growth.tables(),
}


def main() -> None:
    """Runs the benchmarks that are asked for; by default all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", choices=list(BENCHMARKS), help="[all]")
    parser.add_argument("--data-dir", type=Path, help="directory of data sets [$ADAMW_JAX_DATA]")
    parser.add_argument("--markdown", action="store_true", help="print Markdown for documents")
    options = parser.parse_args()
    console = Console(highlight=False)
    chosen = [options.only] if options.only else list(BENCHMARKS)
    tables = [table for name in chosen for table in BENCHMARKS[name](options.data_dir)]
    about = report.facts(
        "python -m benchmarks" + (f" --only {options.only}" if options.only else "")
    )
    if options.markdown:
        print("\n\n".join(map(report.markdown, tables)) + "\n")
    else:
        report.show(report.Report("", [], tables, [], {}), console)
    console.print("\n".join(f"{k}: {v}" for k, v in about.items()), markup=False, soft_wrap=True)


if __name__ == "__main__":
    use_every_core()
    main()
