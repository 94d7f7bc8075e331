"""What an experiment returns, and how it is told in a terminal and in Markdown."""

import html
import os
import platform
import textwrap
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
from matplotlib.figure import Figure as MatplotlibFigure
from rich.console import Console

FINDINGS, CLAIMS = PARTS = "findings", "claims"  # what a terminal shows of a report


class Table(NamedTuple):
    """A table of text.

    Attributes:
      title: the heading above the table.
      columns: the header; all columns but the first are numbers, aligned to the right.
      rows: the cells, as they are shown.
      note: what a reader has to know to understand the table.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


class Figure(NamedTuple):
    """A plot.

    Attributes:
      name: the name of its files, without the suffix.
      title: the finding that it shows, in words; it stands above the plot.
      figure: the Matplotlib figure.
      caption: how to read it.
    """

    name: str
    title: str
    figure: MatplotlibFigure
    caption: str


class Card(NamedTuple):
    """A claim and what became of it.

    Attributes:
      claim: a plain sentence, without the full stop.
      verdict: one to three words.
      number: the number that decides, with its interval.
      explanation: a plain sentence.
      figure: a small plot.
      holds: whether the claim is right; None where that is open.
    """

    claim: str
    verdict: str
    number: str
    explanation: str
    figure: Figure | None = None
    holds: bool | None = None


class Report(NamedTuple):
    """The result of an experiment.

    Attributes:
      title: the heading of the page; if empty, the question that the experiment asks.
      findings: the answer in a few sentences, made from the numbers; the first says the most.
      tables: the numbers in detail.
      figures: saved as SVG and PNG; the first is the one that carries the answer.
      data: tidy rows by file name (without the suffix), saved as CSV.
      cards: the claims that the experiment puts to the test.
    """

    title: str
    findings: Sequence[str]
    tables: Sequence[Table]
    figures: Sequence[Figure]
    data: Mapping[str, Sequence[Mapping[str, Any]]]
    cards: Sequence[Card] = ()


def facts(command: str) -> dict[str, str]:
    """Where and how the numbers were computed, by name."""
    device = jax.devices()[0]
    packages = ("adamw_jax", "jax", "optax", "flax", "numpy")
    return {
        "Command": command,
        "Device": f"{jax.device_count()} × {device.device_kind}, "
        f"{os.cpu_count()} CPU cores ({_processor()})",
        "Versions": f"Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in packages),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):  # not Linux, or the processor has no name
        return platform.processor() or platform.machine()


def show(report: Report, console: Console, parts: Sequence[str] = PARTS) -> None:
    """Prints the title, the findings, and each card in a line or two; tables are on the page.

    Args:
      report: the result of an experiment.
      console: the terminal.
      parts: which of `PARTS` to print.
    """
    if report.title:
        _print(report.title, console)
    if FINDINGS in parts:
        for finding in report.findings:
            _print(finding, console)
    if CLAIMS in parts and report.cards:
        if FINDINGS in parts:
            console.print()
        for card in report.cards:
            _print_card(card, console)


def _print_card(card: Card, console: Console) -> None:
    number = card.number.replace(", ", ",\N{NO-BREAK SPACE}")  # an interval stays in one line
    _print(f"{card.claim}: {card.verdict}, {number}", console)


def _print(text: str, console: Console) -> None:
    """Prints a paragraph, indented from its second line on."""
    lines = textwrap.fill(
        text, console.width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
    shown = lines.replace("\N{NO-BREAK SPACE}", " ")  # which not every terminal has
    console.print(shown, markup=False, highlight=False, soft_wrap=True)


def markdown(table: Table) -> str:
    """The table as Markdown, for documents."""
    rules = [":--"] + ["--:"] * (len(table.columns) - 1)
    lines = [table.columns, rules, *table.rows]
    rows = (
        "| " + " | ".join(html.escape(cell, quote=False) for cell in line) + " |" for line in lines
    )
    return f"**{table.title}**\n\n" + "\n".join(rows) + (f"\n\n{table.note}" if table.note else "")
