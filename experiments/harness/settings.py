"""Settings of an experiment: a TOML file whose keys the command line can override.

An experiment declares its keys as a frozen `msgspec.Struct`, each with its type, its range and a
description for `--help`. Values come from `configs/<experiment>.toml`, then from the file given
with `--config` (which need not have every key), then from the command line.
"""

import argparse
import difflib
import itertools
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar, get_type_hints

import msgspec
import numpy as np

CONFIGS = Path(__file__).parents[2] / "configs"

# The types of keys. Values become arrays, so they must fit into int32, uint32 or float32.
_INT32, _FLOAT32 = int(np.iinfo(np.int32).max), np.finfo(np.float32)
Count = Annotated[int, msgspec.Meta(ge=1, le=_INT32)]
CountOrZero = Annotated[int, msgspec.Meta(ge=0, le=_INT32)]
Seed = Annotated[int, msgspec.Meta(ge=0, le=int(np.iinfo(np.uint32).max))]
Positive = Annotated[float, msgspec.Meta(ge=float(_FLOAT32.tiny), le=float(_FLOAT32.max))]
NonNegative = Annotated[float, msgspec.Meta(ge=0, le=float(_FLOAT32.max))]
# The decay rate of a moving average; the largest is the float32 just below 1.
DecayRate = Annotated[float, msgspec.Meta(ge=0, le=1 - float(_FLOAT32.epsneg))]
SOME = msgspec.Meta(min_length=1)  # of a tuple that must not be empty


def about(text: str) -> msgspec.Meta:
    """The description of a key that `--help` shows."""
    return msgspec.Meta(description=text)


class SettingsError(ValueError):
    """A setting that the user must change; the message says which, where and how."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of an experiment; subclasses declare the keys."""


S = TypeVar("S", bound=Settings)


def keys(cls: type[Settings]) -> dict[str, Any]:
    """The keys of an experiment with their annotated types."""
    return get_type_hints(cls, include_extras=True)


def read(path: Path) -> dict[str, Any]:
    """Reads a TOML file.

    Raises:
      SettingsError: the file cannot be read or is not TOML.
    """
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except RecursionError as error:
        raise SettingsError(
            f"cannot read the settings in {path}: brackets are nested too deeply"
        ) from error
    except (OSError, ValueError) as error:  # ValueError: not TOML, not UTF-8, or too many digits
        reason = getattr(error, "strerror", None) or error
        raise SettingsError(f"cannot read the settings in {path}: {reason}") from error


def build(cls: type[S], sources: Mapping[str, tuple[Mapping[str, Any], bool]]) -> S:
    """Makes settings from several sources, of which the later ones win.

    Args:
      cls: the experiment's settings.
      sources: by name (for messages), the values, and whether they are text that is still to be
        read as the key's type.

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
                _check_normal(values[key])
            except (msgspec.ValidationError, ValueError) as error:
                reason = f"{_shortened(str(error))}{_choices(value, types[key])}"
                raise SettingsError(f"{source}: {key} = {shown(value)}: {reason}") from error
    missing = [key for key in types if key not in values]
    if missing:
        raise SettingsError(f"no value for {', '.join(missing)} in {', '.join(sources)}")
    return cls(**values)


def _check_normal(value: Any) -> None:
    """Refuses numbers that would be zero, or nearly, as float32."""
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, float) and 0 < abs(number) < _FLOAT32.tiny:
            raise ValueError(f"Expected 0 or at least {_FLOAT32.tiny:.3g}")


def check_ascending(**axes: Sequence[float]) -> None:
    """Checks that the values along each axis of a grid increase, as plots and tables expect.

    Raises:
      SettingsError: they do not; the message names the first such axis.
    """
    for key, values in axes.items():
        if any(a >= b for a, b in itertools.pairwise(values)):
            raise SettingsError(f"the values of {key} must increase; got {shown(list(values))}")


def shown(value: Any) -> str:
    """A value as text for messages, shortened if it is long."""
    try:
        text = " ".join(map(str, value)) if value and isinstance(value, list) else repr(value)
    except ValueError:  # Python does not print integers of more than 4,300 digits
        return "an integer of thousands of digits"
    return _shortened(text)


def _shortened(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:80]} … {text[-40:]}"


def _choices(value: Any, annotated: Any) -> str:
    kind = _Kind.of(annotated)
    if not kind.choices:
        return ""
    given = value if isinstance(value, list) else [value]
    return nearest(next((str(v) for v in given if v not in kind.choices), ""), kind.choices)


def nearest(word: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    """Ends a message about an unknown word, with the nearest known word or all of them."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"


def add_options(
    parser: argparse.ArgumentParser, cls: type[Settings], defaults: Mapping[str, Any]
) -> None:
    """Adds an option for each key, described with its default from the config file."""
    group = parser.add_argument_group("settings [value in the config file]")
    for key, annotated in keys(cls).items():
        kind = _Kind.of(annotated)
        if kind.tables:
            continue  # tables can only be given in the file
        group.add_argument(
            option(key),
            dest=key,
            nargs=kind.nargs,
            metavar=kind.metavar,
            default=argparse.SUPPRESS,
            help=f"{kind.description} [{shown(defaults.get(key))}]".replace("%", "%%"),
        )


def option(key: str) -> str:
    """The command line's spelling of a key."""
    return "--" + key.replace("_", "-")


class _Kind(NamedTuple):
    """What `--help` and messages need to know about a key's type."""

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
