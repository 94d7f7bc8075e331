"""Does AdamW do better than Adam, and than Adam+L2, once all are tuned alike?

Adam, Adam+L2 and AdamW get as many trials each, spread over the learning rate, the decay and the
length of the run. Every run is stopped where its own validation images say, and the validation
images choose the settings, separately for accuracy and for loss. What is chosen is run with fresh
seeds. A seed draws the images, the initial weights and their order, the same for all arms, and
comparisons are made seed by seed. Loss is measured after one temperature that is fitted on the
validation images.

The talk guessed that (1) the data does not tend to overfitting, (2) λ was too small or too large,
or (3) a schedule was missing. docs/study-plan.md is the plan, which was made before the runs.
"""

from experiments.harness.context import Context
from experiments.harness.report import Report
from experiments.study.report import summarize
from experiments.study.settings import Settings
from experiments.study.stages import study

__all__ = ["Settings", "run"]


def run(config: Settings, context: Context) -> Report:
    """Tunes every arm on every task, runs what was chosen with fresh seeds, and compares."""
    return summarize(config, [study(task, config, context) for task in config.tasks])
