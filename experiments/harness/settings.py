"""Settings of an experiment: a TOML file whose keys the command line can override.

An experiment declares its keys as a frozen `msgspec.Struct`, each with its type, range
and a sentence for `--help`. Values come from `configs/<experiment>.toml`, then from the
file given with `--config` (which need not name every key), then from the command line.
"""

import argparse
import difflib
import itertools
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar, get_type_hints

import msgspec

CONFIGS = Path(__file__).parents[2] / "configs"

# Types that several experiments' keys have.
Count = Annotated[int, msgspec.Meta(ge=1)]
Positive = Annotated[float, msgspec.Meta(gt=0, le=sys.float_info.max)]
NonNegative = Annotated[float, msgspec.Meta(ge=0, le=sys.float_info.max)]
DecayRate = Annotated[float, msgspec.Meta(ge=0, lt=1)]  # of a moving average


def about(text: str) -> msgspec.Meta:
    """The sentence that `--help` shows for a key."""
    return msgspec.Meta(description=text)


class SettingsError(ValueError):
    """A key or value that the user can mend; the message says where and how."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of an experiment; subclasses declare them."""


S = TypeVar("S", bound=Settings)


def keys(cls: type[Settings]) -> dict[str, Any]:
    """The keys with their annotated types."""
    return get_type_hints(cls, include_extras=True)


def read(path: Path) -> dict[str, Any]:
    """Reads a TOML file.

    Raises:
      SettingsError: the file cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SettingsError(f"cannot read the settings in {path}: {reason}") from error


def build(cls: type[S], sources: Mapping[str, tuple[Mapping[str, Any], bool]]) -> S:
    """Makes settings from several sources, of which later ones win.

    Args:
      cls: the experiment's settings.
      sources: by name (for messages), the values and whether they are text that has
        yet to be read as the key's type.

    Raises:
      SettingsError: a key is unknown or missing, or a value has the wrong type or range.
    """
    types, values = keys(cls), {}
    for source, (given, is_text) in sources.items():
        for key, value in given.items():
            if key not in types:
                raise SettingsError(f"{source}: unknown key {key!r}{nearest(key, types)}")
            try:
                values[key] = msgspec.convert(value, types[key], strict=not is_text)
            except msgspec.ValidationError as error:
                raise SettingsError(
                    f"{source}: {key} = {_shown(value)}: {error}{_choices(value, types[key])}"
                ) from error
    missing = [key for key in types if key not in values]
    if missing:
        raise SettingsError(f"no value for {', '.join(missing)} in {', '.join(sources)}")
    return cls(**values)


def check_ascending(**axes: Sequence[float]) -> None:
    """Refuses axes of a grid whose values do not rise, as plots and tables take them.

    Raises:
      SettingsError: naming the first.
    """
    for key, values in axes.items():
        if any(a >= b for a, b in itertools.pairwise(values)):
            raise SettingsError(f"{key} must rise from value to value; got {_shown(list(values))}")


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else repr(value)


def _choices(value: Any, annotated: Any) -> str:
    kind = _Kind.of(annotated)
    if not kind.choices:
        return ""
    given = value if isinstance(value, list) else [value]
    return nearest(next((str(v) for v in given if v not in kind.choices), ""), kind.choices)


def nearest(word: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    """The end of a message about an unknown word: the nearest known one, or all."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"


def add_options(
    parser: argparse.ArgumentParser, cls: type[Settings], defaults: Mapping[str, Any]
) -> None:
    """Adds one option per key, described with its default from the config file."""
    group = parser.add_argument_group("settings [value in the config file]")
    for key, annotated in keys(cls).items():
        kind = _Kind.of(annotated)
        if kind.tables:
            continue  # for the file alone
        group.add_argument(
            option(key),
            dest=key,
            nargs=kind.nargs,
            metavar=kind.metavar,
            default=argparse.SUPPRESS,
            help=f"{kind.description} [{_shown(defaults.get(key))}]".replace("%", "%%"),
        )


def option(key: str) -> str:
    """The command line's spelling of a key."""
    return "--" + key.replace("_", "-")


class _Kind(NamedTuple):
    """What `--help` and messages need to know of a key's type."""

    description: str
    nargs: int | str | None
    choices: tuple[str, ...]
    metavar: str
    tables: bool

    @classmethod
    def of(cls, annotated: Any) -> "_Kind":
        info: Any = msgspec.inspect.type_info(annotated)
        description = ""
        if isinstance(info, msgspec.inspect.Metadata):
            description = (info.extra_json_schema or {}).get("description", "")
            info = info.type
        nargs = None
        if isinstance(info, msgspec.inspect.VarTupleType):
            nargs, info = "+", info.item_type
        elif isinstance(info, msgspec.inspect.TupleType):
            nargs, info = len(info.item_types), info.item_types[0]
        if isinstance(info, msgspec.inspect.Metadata):
            info = info.type
        choices = getattr(info, "values", ())
        plain = {"IntType": "INT", "FloatType": "NUMBER", "BoolType": "true|false"}
        metavar = plain.get(type(info).__name__, "TEXT")
        metavar = f"{{{','.join(choices)}}}" if choices else metavar
        tables = isinstance(info, msgspec.inspect.StructType)
        return cls(description, nargs, choices, metavar, tables)
