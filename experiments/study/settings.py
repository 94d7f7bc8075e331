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
    trials: Annotated[int, msgspec.Meta(ge=2), about("trials of each arm")]
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

    def __post_init__(self) -> None:
        if not any(task.primary for task in self.tasks):
            raise settings.SettingsError("no task has primary = true")
        names = [(task.name, task.schedule) for task in self.tasks]
        for i, task in enumerate(self.tasks):
            if names.index((task.name, task.schedule)) < i:
                raise settings.SettingsError(
                    f"two tasks have the name {task.name!r} and the schedule {task.schedule!r}"
                )
            if task.less and (task.less, task.schedule) not in names:
                raise settings.SettingsError(
                    f"the task {task.name!r} has less = {task.less!r}, but no task with that name "
                    f"and the schedule {task.schedule!r} is there"
                )
            ranges = {"l2": task.l2, "weight_decay": task.weight_decay}
            for name, (low, high) in (ranges | {"learning_rates": self.learning_rates}).items():
                if low >= high:
                    raise settings.SettingsError(f"{name} = {low:g} {high:g} is no range")
            if max(task.seeds, task.talk_seeds) > self.first_tuning_seed:
                raise settings.SettingsError(
                    f"first_tuning_seed = {self.first_tuning_seed} is one of the fresh seeds 0, 1, "
                    f"and so on of the task {task.name!r}"
                )
