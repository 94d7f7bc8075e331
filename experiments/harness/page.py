"""The files of a report: data, tables, figures, and an HTML page that needs nothing else."""

import base64
import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.figure import Figure as MatplotlibFigure

from experiments.harness import plots
from experiments.harness.report import Figure, Report, markdown

PAGE = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def write(report: Report, output: Path, facts: Mapping[str, str], question: str) -> Path:
    """Writes all files of a report into a directory.

    Args:
      report: the result of an experiment.
      output: the directory, which exists.
      facts: where and how the numbers were computed, by name.
      question: paragraphs; the first is what the experiment asks, in one line.

    Returns:
      The path of the HTML page.

    Raises:
      OSError: a file cannot be written; the error names it, and an older file stays whole.
    """
    for name, rows in report.data.items():
        write_whole(output / f"{name}.csv", _csv(rows).encode())
    tables = "\n\n".join(map(markdown, report.tables))
    write_whole(output / "tables.md", (tables + "\n").encode())
    small = [card.figure for card in report.cards if card.figure]
    sources = {f.name: _written(f, output) for f in (*report.figures, *small)}
    asked, *method = question.strip().split("\n\n")
    page = PAGE.get_template("report.html.j2").render(
        title=report.title or asked,
        question="" if report.title in asked else asked,  # which is not said twice
        method=method,
        report=report,
        sources=sources,
        facts=facts,
    )
    path = output / "report.html"
    write_whole(path, page.encode(errors="replace"))  # a path may hold bytes that are not UTF-8
    return path


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file under another name and renames it, so that it is never there in part.

    Raises:
      OSError: the file cannot be written; the error names it.
    """
    beside = path.with_name(f".{path.name}.part")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    except OSError as error:  # raised anew, since it does not always name the file
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        beside.unlink(missing_ok=True)


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _written(figure: Figure, output: Path) -> str:
    """Writes a plot under its title as SVG and as PNG; returns it without the title as a URL."""
    untitled = base64.b64encode(_rendered(figure.figure, "svg")).decode()
    plots.entitle(figure.figure, figure.title)
    for kind in ("svg", "png"):
        write_whole(output / f"{figure.name}.{kind}", _rendered(figure.figure, kind))
    return f"data:image/svg+xml;base64,{untitled}"


def _rendered(figure: MatplotlibFigure, kind: str) -> bytes:
    buffer = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {}
    figure.savefig(buffer, format=kind, metadata=metadata, dpi=160)
    return buffer.getvalue()
