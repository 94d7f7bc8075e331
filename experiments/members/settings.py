"""The settings of the comparison of members."""

from typing import Annotated, Any, Literal

import msgspec

from experiments.harness import settings
from experiments.harness.settings import SOME, Count, Positive, about
from experiments.members.members import BASE, MEMBERS

Range = tuple[Positive, Positive]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Settings(settings.Settings, frozen=True, kw_only=True):
    """The keys of `configs/members.toml`."""

    data: Annotated[Literal["digits", "fashion-mnist"], about("the data set")]
    validation: Annotated[
        float,
        msgspec.Meta(gt=0, lt=1),
        about("fraction of the images by which runs are stopped and settings chosen"),
    ]
    images: Annotated[settings.CountOrZero, about("training images; 0 for all that are left")]
    noises: Annotated[tuple[Share, ...], SOME, about("fractions of them with wrong labels")]
    hidden: Annotated[tuple[Count, ...], about("sizes of the hidden layers")]
    batch_size: Annotated[Count, about("images in a step")]
    epochs: Annotated[Count, about("passes over the training images")]
    every: Annotated[Count, about("epochs between two evaluations")]
    members: Annotated[tuple[str, ...], about("the members, adamw first")]
    learning_rates: Annotated[Range, about("the range of AdamW's α")]
    weight_decays: Annotated[Range, about("the range of AdamW's λ, times α")]
    trials: Annotated[int, msgspec.Meta(ge=2), about("trials of each member")]
    promoted: Annotated[Count, about("how many of the best get more seeds")]
    tuning_seeds: Annotated[
        int, msgspec.Meta(ge=2), about("seeds of these; every trial is run with the first")
    ]
    first_tuning_seed: Annotated[
        settings.Seed, about("the first of these seeds; fresh seeds are 0, 1, and so on")
    ]
    seeds: Annotated[int, msgspec.Meta(ge=2), about("fresh seeds for what was chosen")]
    matters: Annotated[Positive, about("smallest difference that matters, in points of accuracy")]

    def __post_init__(self) -> None:
        for name in self.members:
            if name not in MEMBERS:
                raise settings.SettingsError(
                    f"no member is called {name!r}{settings.nearest(name, MEMBERS)}"
                )
        if self.members[:1] != (BASE,) or len(set(self.members)) < max(len(self.members), 2):
            raise settings.SettingsError(
                f"members = {settings.shown(list(self.members))}: the first is {BASE}, with which "
                "the others, at least one and each once, are compared"
            )
        if self.epochs % self.every:
            raise settings.SettingsError(f"every = {self.every} does not divide {self.epochs}")
        for name in ("learning_rates", "weight_decays"):
            low, high = getattr(self, name)
            if low >= high:
                raise settings.SettingsError(f"{name} = {low:g} {high:g} is no range")
        if self.seeds > self.first_tuning_seed:
            raise settings.SettingsError(
                f"first_tuning_seed = {self.first_tuning_seed} is one of the fresh seeds 0, 1, and "
                "so on"
            )

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the results of a run and is in neither its settings nor its name."""
        names = ("data", "validation", "images", "hidden", "batch_size", "epochs", "every")
        found = {name: getattr(self, name) for name in names}
        return found | {"hidden": list(self.hidden)}
