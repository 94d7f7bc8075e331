"""A space that settings are drawn from, in Optuna's distributions, and the programs it needs."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from adamw_jax.sweep.grid import Grid, Row, concatenated, is_number, normalized, product
from adamw_jax.sweep.run import Run
from adamw_jax.sweep.variants import Variant, variants

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


class Space(NamedTuple):
    """Distributions of settings.

    Attributes:
      distributions: one for each setting, by name.
      rows: outermost rows: all combinations of the settings that are compiled in, with the ends of
        the others. They have the programs and dtypes of every row that is drawn.
      variants: their programs.
    """

    distributions: "dict[str, BaseDistribution]"
    rows: Grid
    variants: list[Variant]

    @classmethod
    def of(
        cls,
        distributions: "Mapping[str, BaseDistribution]",
        run: Run | Callable[[Row], Run],
        static: Sequence[str],
        data: Any,
    ) -> "Space":
        """Finds the programs of a space.

        Raises:
          TypeError: it is not a dictionary of distributions, or as in `variants`.
          ValueError: it is empty, a setting that is compiled in has a range, or as in `variants`.
        """
        rows = _outermost(distributions, static)
        return cls(dict(distributions), rows, variants(run, rows, static, data))

    def row(self, params: Mapping[str, Any]) -> Row:
        """The row of a trial with these parameters, in the order of the others."""
        return {name: params.get(name, value) for name, value in self.rows[0].items()}

    def program(self, row: Row) -> str:
        """The name of the variant that trains a row."""
        numbers = self.variants[0].numbers
        return repr({n: value for n, value in row.items() if n != "seed" and n not in numbers})


def _outermost(distributions: "Mapping[str, BaseDistribution]", static: Sequence[str]) -> Grid:
    from optuna.distributions import BaseDistribution, CategoricalDistribution

    if not isinstance(distributions, Mapping):
        raise TypeError(f"space is a dictionary of Optuna's distributions; got {distributions!r}")
    if not distributions:
        raise ValueError("space is empty; give a distribution for each setting")
    fixed, ends = dict[str, Sequence[Any]](), dict[str, Sequence[Any]]()
    for name, given in distributions.items():
        if not isinstance(given, BaseDistribution):
            raise TypeError(
                "space has distributions, such as optuna.distributions.FloatDistribution(1e-4, "
                f"0.1, log=True); for {name!r} it has {given!r}"
            )
        if not isinstance(given, CategoricalDistribution):
            if name in static:
                raise ValueError(
                    f"static names {name!r}, which has a range, and each of its values would need "
                    "a program. Give it a few values, in a CategoricalDistribution"
                )
            ends[name] = given.low, given.high  # pyright: ignore[reportAttributeAccessIssue]
        elif name in static or not all(map(is_number, given.choices)):
            fixed[name] = given.choices
        else:
            ends[name] = given.choices
    most = max(map(len, ends.values()), default=1)
    drawn = [{name: values[i % len(values)] for name, values in ends.items()} for i in range(most)]
    rows = product(drawn, **fixed)
    return normalized(concatenated([{name: row[name] for name in distributions} for row in rows]))
