"""Checks of the options of `sweep`, whose messages name the one that is wrong."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from adamw_jax.sweep import processes
from adamw_jax.sweep.halving import Halving
from adamw_jax.sweep.layout import Layout


def checked(layout: Any, halving: Any, identity: Any, devices: Any, progress: Any) -> Any:
    """Checks the types of arguments; returns the identity as a dictionary."""
    if not isinstance(layout, Layout | None):
        raise TypeError(f"layout is a Layout, such as Layout(lanes=16); got {layout!r}")
    if not isinstance(halving, Halving | None):
        raise TypeError(f"halving is a Halving, such as Halving('loss', (10,)); got {halving!r}")
    if not isinstance(identity, Mapping | None):
        raise TypeError(f"identity is a dictionary; got {identity!r}")
    if not (isinstance(progress, bool | None) or callable(progress)):
        raise TypeError(f"progress is a function that takes a Progress; got {progress!r}")
    if devices is not None and (isinstance(devices, str) or not list(devices)):
        raise ValueError(f"devices is a list of JAX's devices, not empty; got {devices!r}")
    for device in devices or ():
        if not isinstance(device, jax.Device):
            raise TypeError(f"devices is a list of JAX's devices; {device!r} is in it")
    try:
        return json.loads(json.dumps(dict(identity or {})))
    except TypeError as error:
        raise ValueError(f"identity must be JSON: {error}") from error


def check_executor(on: Any, tries: Any, devices: Any) -> None:
    """Checks who is to train, and how often that may fail."""
    if not isinstance(tries, int) or isinstance(tries, bool) or tries < 1:
        raise ValueError(f"tries is an integer from 1 on; got {tries!r}")
    if on is None:
        return
    fits = callable(getattr(on, "start", None)) and hasattr(on, "workers")
    if isinstance(on, type) or not fits:
        raise TypeError(f"on is an executor, with `start` and `workers`; got {on!r}")
    if devices is not None:
        raise ValueError("devices are those of this process; with on=, workers use all of theirs")
    if processes.count() > 1:
        raise ValueError("with on=, one process makes the call; jax.distributed has joined several")


def check_place(output: Any, cache: Any, fresh: bool) -> None:
    """Checks where results are to be kept."""
    for name, place in {"output": output, "cache": cache}.items():
        if not isinstance(place, str | Path | None):
            raise TypeError(f"{name} is a directory; got {place!r}")
    if output is not None and cache is not None:
        raise ValueError("output keeps one sweep in its directory, cache keeps many; give one")
    if output is None and cache is None and fresh:
        raise ValueError("fresh=True deletes what output or cache keeps; give one of them")
    if output is None and cache is None and processes.count() > 1:
        raise ValueError("several processes need an output or a cache, where their results meet")
