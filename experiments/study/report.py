"""The study's report: the answer, the guesses, the pictures and the tables."""

from collections.abc import Sequence

from experiments.harness.report import Report
from experiments.study import answer, guesses, plots, tables
from experiments.study.evidence import Evidence
from experiments.study.settings import Settings
from experiments.study.stages import Studied


def summarize(config: Settings, studied: Sequence[Studied]) -> Report:
    """Says what the measurements answer.

    Args:
      config: the settings.
      studied: what was measured, by task.
    """
    evidence = Evidence(config, studied)
    return Report(
        f"Why did AdamW not beat Adam on {NAMES[config.data]}?",
        answer.sentences(evidence),
        tables.all_of(evidence),
        plots.all_of(evidence),
        {"results": tables.every(evidence)},
        guesses.cards(evidence),
    )


NAMES = {"digits": "handwritten digits", "fashion-mnist": "Fashion-MNIST"}
