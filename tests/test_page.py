"""How an experiment's result is told: its page and what the terminal shows."""

import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import sweep_program
from rich.console import Console

from experiments import command_line as cli
from experiments.harness import page, plots, sweeps
from experiments.harness.context import Context
from experiments.harness.report import PARTS, Card, Figure, Report, Table, show

QUESTION = "Does it help?\n\nThe method, in a\nparagraph.\n\nAnother paragraph."


def figure(name):
    drawn, axes = plots.subplots(1)
    axes[0, 0].plot(np.arange(3))
    return Figure(name, f"What {name} shows", drawn, f"How to read {name}.")


CARDS = [
    Card("It helps always", "wrong", "−1 [−2, −0.5]", "It hurts.", figure("small"), False),
    Card("It helps the young", "right", "+2 [1, 3]", "By two points.", None, True),
    Card("It helps the old", "not decided", "+0 [−1, 1]", "Too few are old."),
]
REPORT = Report(
    "A title",
    ["It helps a < b & c.", "A second finding."],
    [Table("A table", ["arm", "loss"], [["Adam", "0.25"], ["AdamW", "0.5"]], "A note.")],
    [figure("first"), figure("second")],
    {"results": [{"loss": 0.25}], "budget": [{"trials": 1}]},
    CARDS,
)


class Reader(HTMLParser):
    """What a page holds: its texts in their order, its tags, and the texts that are folded."""

    def __init__(self, text):
        super().__init__()
        self.texts, self.folded, self.tags, self.open = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip() and "style" not in self.open:
            text = " ".join(data.split())
            self.texts.append(text)
            self.folded += [text] if "details" in self.open else []

    def attributes(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def written(report, output):
    path = page.write(report, output, {"Command": "run it", "Device": "a cpu"}, QUESTION)
    return Reader(path.read_text())


def test_the_page_tells_the_answer_first_and_folds_how_it_was_found(tmp_path):
    read = written(REPORT, tmp_path)
    order = [
        "A title", "A title", "Does it help?", "It helps a < b & c.", "A second finding.",
        "What first shows", "How to read first.", "It helps always", "wrong", "−1 [−2, −0.5]",
        "It hurts.", "What small shows", "How to read small.", "It helps the young", "right",
        "+2 [1, 3]", "By two points.", "It helps the old", "not decided", "+0 [−1, 1]",
        "Too few are old.", "What second shows", "How to read second.",
    ]  # fmt: skip
    folded = [
        "The method", "The method, in a paragraph.", "Another paragraph.", "The tables", "A table",
        "arm", "loss", "Adam", "0.25", "AdamW", "0.5", "A note.", "How this page was made",
        "Command", "run it", "Device", "a cpu", "Data", "results.csv, budget.csv, beside this page",
    ]  # fmt: skip
    assert read.texts == [*order, *folded] and read.folded == folded
    assert not read.open
    assert [a for a in read.attributes("p") if a.get("class") == "lead"] == [{"class": "lead"}]


@pytest.mark.parametrize("title", ["", "Does it help?"])
def test_what_a_report_does_not_have_leaves_no_heading(title, tmp_path):
    small = Report(title, ["Yes."], [], [], {})
    path = page.write(small, tmp_path, {"Device": "a cpu"}, "Does it help?")
    read = Reader(path.read_text())
    assert read.texts == ["Does it help?", "Does it help?", "Yes.",
                          "How this page was made", "Device", "a cpu"]  # fmt: skip
    # Once in the window's title, once on the page.
    assert [tag for tag, _ in read.tags if tag in ("h1", "title")] == ["title", "h1"]


def test_every_picture_is_on_the_page_in_words_too_and_in_files(tmp_path):
    read = written(REPORT, tmp_path)
    names = ["first", "small", "second"]
    assert [image["alt"] for image in read.attributes("img")] == [
        f"What {name} shows. How to read {name}." for name in names
    ]
    assert {f"{name}{kind}" for name in names for kind in (".svg", ".png")} <= {
        path.name for path in tmp_path.iterdir()
    }


def test_a_verdict_has_a_color_beside_its_word(tmp_path):
    read = written(REPORT, tmp_path)
    assert [item["class"] for item in read.attributes("li")] == ["wrong", "right", "open"]


def test_the_page_is_for_readers_of_every_kind(tmp_path):
    read = written(REPORT, tmp_path)
    assert read.attributes("html") == [{"lang": "en"}]
    assert any(meta.get("name") == "viewport" for meta in read.attributes("meta"))
    assert "script" not in dict(read.tags)
    # What scrolls can be reached with the keyboard and says what it is.
    boxes = [box for box in read.attributes("div") if box["class"] == "scroll"]
    assert len(boxes) == 4 and all(b["tabindex"] == "0" and b["aria-label"] for b in boxes)
    style = (tmp_path / "report.html").read_text().partition("</style>")[0]
    assert "prefers-color-scheme: dark" in style and "@media print" in style
    assert "details::details-content { content-visibility: visible" in style  # printed unfolded


# The terminal.


def shown(report, width, *parts):
    console = Console(file=io.StringIO(), width=width)
    show(report, console, *parts)
    return console.file.getvalue()


def test_the_terminal_shows_findings_and_cards_and_no_table():
    assert shown(REPORT, 80) == (
        "A title\n"
        "It helps a < b & c.\n"
        "A second finding.\n"
        "\n"
        "It helps always: wrong, −1 [−2, −0.5]\n"
        "It helps the young: right, +2 [1, 3]\n"
        "It helps the old: not decided, +0 [−1, 1]\n"
    )


def test_the_terminal_can_show_the_findings_or_the_claims_alone():
    untitled = REPORT._replace(title="")
    findings, claims = (shown(untitled, 80, [part]) for part in PARTS)
    assert f"{findings}\n{claims}" == shown(untitled, 80)
    assert "helps a < b" in findings and "helps always" in claims


def test_long_lines_are_wrapped_and_an_interval_stays_whole():
    assert shown(REPORT._replace(cards=CARDS[:2]), 32).splitlines()[-4:] == [
        "It helps always: wrong, −1",
        "  [−2, −0.5]",
        "It helps the young: right, +2",
        "  [1, 3]",
    ]
    plain = REPORT._replace(findings=["[bold]x[/] and https://example.org/a-b"], cards=())
    assert shown(plain, 20) == "A title\n[bold]x[/] and\n  https://example.org/a-b\n"


def test_a_run_of_the_command_fills_a_screen_at_most(tmp_path, capsys):
    assert cli.main(["surfaces", "--output", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    path = tmp_path / "report.html"
    assert len(lines) <= 30 and max(map(len, lines[:-1])) <= 80
    assert re.fullmatch(rf"\d+ s. The page, with all plots and tables: {path}", lines[-1])


@pytest.fixture
def grid(tmp_path):
    """Does a grid, and returns what was printed and whether kept runs were reused."""

    def run(terminal):
        console = Console(file=io.StringIO(), force_terminal=terminal, width=80)
        context = Context(console, tmp_path, None, False)
        rows = sweep_program.GRID[:2]
        sweeps.run_grid("a grid", sweep_program.problem(), rows, sweep_program.data, context)
        return console.file.getvalue(), context.reused

    return run


def test_of_a_progress_bar_nothing_is_left(grid):
    printed, reused = grid(terminal=True)
    assert "a grid" in printed and "2/2 runs" in printed and not reused
    *_, last = printed.split("\n")
    assert last.replace("\x1b[?25h", "") == "\r\x1b[1A\x1b[2K"  # up a line, which is erased


def test_a_log_has_a_line_for_a_long_sweep(grid, monkeypatch):
    monkeypatch.setattr(sweeps, "LONG", 0)
    printed, reused = grid(terminal=False)
    assert re.fullmatch(r"a grid: 2 runs in \d+ s\n", printed) and not reused
    assert grid(terminal=False) == ("", True)


def test_a_log_does_not_hear_of_short_sweeps(grid):
    assert grid(terminal=False) == ("", False)
