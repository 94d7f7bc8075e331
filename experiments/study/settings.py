"""The settings of the study."""

from typing import Annotated, Literal

import msgspec

from experiments.harness import settings
from experiments.harness.settings import SOME, Count, NonNegative, Positive, about
from experiments.study.tasks import Range, Task


class Settings(settings.Settings, frozen=True, kw_only=True):
    """The keys of `configs/study.toml`."""

    data: Annotated[Literal["digits", "fashion-mnist"], about("the data set")]
    validation: Annotated[
        float,
        msgspec.Meta(gt=0, lt=1),
        about("fraction of the images by which runs are stopped and settings chosen"),
    ]
    batch_size: Annotated[Count, about("images in a step")]
    every: Annotated[Count, about("epochs between two evaluations")]
    learning_rates: Annotated[Range, about("the range of α for all arms")]
    trials: Annotated[Count, about("trials of each arm")]
    promoted: Annotated[Count, about("how many of the best, by each measure, get more seeds")]
    tuning_seeds: Annotated[
        int, msgspec.Meta(ge=2), about("seeds of these; every trial is run with the first")
    ]
    first_tuning_seed: Annotated[
        settings.Seed, about("the first of these seeds; fresh seeds are 0, 1, and so on")
    ]
    talk_learning_rate: Annotated[Positive, about("the talk's α")]
    talk: Annotated[tuple[NonNegative, ...], about("the talk's λ, in either convention")]
    between: Annotated[tuple[NonNegative, ...], about("values of λ between those")]
    matters_accuracy: Annotated[Positive, about("smallest difference that matters, in points")]
    matters_loss: Annotated[Positive, about("smallest difference in loss that matters")]
    tasks: Annotated[tuple[Task, ...], SOME]
