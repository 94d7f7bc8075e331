"""Which member of the family is worth a switch from AdamW, if all are tuned alike?

Every member gets the same number of trials over its learning rate and decay, at the same points of
its ranges, and all else at its paper's defaults. The best by validation accuracy get more seeds,
and the best of these is run with fresh ones and compared with AdamW seed by seed, on right and on
wrong labels. Every run is stopped where its own validation images say. A seed draws the images,
the initial weights and their order, the same for all members.

docs/members-plan.md is the plan, which was made before the runs.
"""

import polars as pl

from experiments.harness.context import Context
from experiments.harness.report import Report
from experiments.members.report import summarize
from experiments.members.settings import Settings
from experiments.members.stages import run_member

__all__ = ["Settings", "run"]


def run(config: Settings, context: Context) -> Report:
    """Tunes every member on every task, AdamW first, and compares what was chosen."""
    found = [
        run_member(name, noise, config, context)
        for name in config.members
        for noise in config.noises
    ]
    return summarize(config, pl.concat(found))
