"""What an experiment hands back, and how it is shown: terminal, files, one HTML page."""

import base64
import csv
import html
import io
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jinja2
import rich.box
import rich.table
from matplotlib.figure import Figure as MatplotlibFigure
from rich.console import Console
from rich.markup import escape

from adamw_jax.sweep.files import write_whole

PAGE = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


class Table(NamedTuple):
    """A table of text.

    Attributes:
      title: stands above it.
      columns: the header; all but the first column are numbers, set flush right.
      rows: cells as they are shown.
      note: what a reader must know to read it.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


class Figure(NamedTuple):
    """A plot.

    Attributes:
      name: the file it is saved in, without its ending.
      figure: Matplotlib's.
      caption: what it shows and how to read it.
    """

    name: str
    figure: MatplotlibFigure
    caption: str


class Report(NamedTuple):
    """The result of an experiment.

    Attributes:
      title: the question.
      findings: the answer, a sentence each, made from the numbers.
      tables: shown in terminal and page.
      figures: shown in the page and saved as SVG and PNG.
      data: tidy rows by file name (without ending), saved as CSV.
    """

    title: str
    findings: Sequence[str]
    tables: Sequence[Table]
    figures: Sequence[Figure]
    data: Mapping[str, Sequence[Mapping[str, Any]]]


def facts(command: str) -> dict[str, str]:
    """Where and how the numbers were made."""
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
    except (OSError, StopIteration):  # not Linux, or a processor that gives no name
        return platform.processor() or platform.machine()


def show(report: Report, console: Console) -> None:
    """Prints the tables and findings."""
    for table in report.tables:
        shown = rich.table.Table(
            title=escape(table.title),
            title_justify="left",
            title_style="bold",
            box=rich.box.SIMPLE_HEAD,
            padding=0,
        )
        for i, column in enumerate(table.columns):
            widest = max([*column.split(), *(row[i] for row in table.rows)], key=len, default="")
            # Rather a line too long than a number cut short.
            shown.add_column(
                escape(column), justify="right" if i else "left", min_width=len(widest)
            )
        for row in table.rows:
            shown.add_row(*map(escape, row))
        console.print(shown, crop=False)
        if table.note:
            console.print(table.note, style="dim", markup=False, highlight=False)
    console.print()
    for finding in report.findings:
        console.print(f"• {finding}", markup=False, highlight=False)


def write(report: Report, output: Path, about: Mapping[str, str], question: str) -> Path:
    """Writes data, plots and page into a directory.

    Args:
      report: the result.
      output: the directory.
      about: where and how the numbers were made.
      question: paragraphs that say what is asked and done.

    Every file is written beside its place and then moved there, so that a full disk or
    a kill leaves the older file whole.

    Returns:
      The path of the page, which needs no other file and no network.
    """
    for name, rows in report.data.items():
        write_whole(output / f"{name}.csv", _csv(rows).encode())
    tables = "\n\n".join(map(markdown, report.tables))
    write_whole(output / "tables.md", (tables + "\n").encode())
    images = []
    for name, figure, caption in report.figures:
        vector = _rendered(figure, "svg")
        write_whole(output / f"{name}.svg", vector)
        write_whole(output / f"{name}.png", _rendered(figure, "png"))
        source = f"data:image/svg+xml;base64,{base64.b64encode(vector).decode()}"
        images.append({"source": source, "caption": caption})
    page = PAGE.get_template("report.html.j2").render(
        report=report,
        images=images,
        facts=about,
        question=question.strip().split("\n\n"),
        data=[f"{name}.csv" for name in report.data],
    )
    path = output / "report.html"
    write_whole(path, page.encode())
    return path


def markdown(table: Table) -> str:
    """The table as Markdown, for documents."""
    rules = [":--"] + ["--:"] * (len(table.columns) - 1)
    lines = [table.columns, rules, *table.rows]
    rows = (
        "| " + " | ".join(html.escape(cell, quote=False) for cell in line) + " |" for line in lines
    )
    return f"**{table.title}**\n\n" + "\n".join(rows) + (f"\n\n{table.note}" if table.note else "")


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _rendered(figure: MatplotlibFigure, kind: str) -> bytes:
    buffer = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {}
    figure.savefig(buffer, format=kind, metadata=metadata, dpi=160)
    return buffer.getvalue()
