"""Prints the benchmark tables: `python -m benchmarks`."""

import argparse
from pathlib import Path

from rich.console import Console

from benchmarks import training, updates
from experiments import report


def main() -> None:
    """Runs the benchmarks that are asked for, all by default."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("which", nargs="*", choices=["updates", "training"], help="[both]")
    parser.add_argument("--data-dir", type=Path, help="where data sets lie [$ADAMW_JAX_DATA]")
    parser.add_argument("--markdown", action="store_true", help="print Markdown for documents")
    options = parser.parse_args()
    which = options.which or ["updates", "training"]
    console = Console(highlight=False)
    tables = updates.tables() if "updates" in which else []
    tables += training.tables(options.data_dir) if "training" in which else []
    about = report.facts("python -m benchmarks " + " ".join(which))
    if options.markdown:
        print("\n\n".join(map(report.markdown, tables)) + "\n")
    else:
        report.show(report.Report("", [], tables, [], {}), console)
    console.print("\n".join(f"{k}: {v}" for k, v in about.items()), markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
