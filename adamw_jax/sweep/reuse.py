"""Results that a new sweep in a cache takes over from finished ones, which had some of its rows."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from adamw_jax.sweep import manifest, parquet, table
from adamw_jax.sweep.claim import TABLE
from adamw_jax.sweep.files import StoreError
from adamw_jax.sweep.folder import Folder
from adamw_jax.sweep.keeping import Kept
from adamw_jax.sweep.manifest import CALLBACKS
from adamw_jax.sweep.results import Block
from adamw_jax.sweep.variants import Variant

# The settings of a run as a table has them, in the order of their names.
Key = tuple[Any, ...]


def take_over(store: Kept, cache: Folder, variants: Sequence[Variant]) -> None:
    """Keeps in a new sweep what finished ones that differ from it in their rows alone have of it.

    Args:
      store: the sweep's, which is open.
      cache: where the others are.
      variants: those of the sweep.
    """
    others = cache.holding(TABLE)
    if not others or store.fresh or store.parts() or store.finished() is not None:
        return
    ours, names = store.manifest.description, list(store.rows[0])
    keys = table.setting_keys(table.setting_columns(store.rows), names)
    left = {key: run for run, key in enumerate(keys)}
    fixed = [i for i, name in enumerate(names) if name not in {"seed", *variants[0].numbers}]
    programs = _programs(ours, keys, fixed)
    for folder in reversed(others):
        try:
            found = manifest.read(folder)
            if not left or not _alike(found.description, ours):
                continue
            content, path = folder.read(TABLE), folder.path(TABLE)
            theirs = parquet.keys_of(content, path, found.table, names)
        except (FileNotFoundError, StoreError) as error:
            warnings.warn(f"{folder.path()} is left out: {error}", stacklevel=2)
            continue
        same = _programs(found.description, theirs, fixed).items() & programs.items()
        shared = {combination for combination, (program, _) in same if program != CALLBACKS}
        mine = {
            run: left.pop(key)
            for run, key in enumerate(theirs)
            if key in left and tuple(key[i] for i in fixed) in shared
        }
        if mine:
            for variant in variants:  # lanes affect results, so those that are new have as many
                if variant.name in found.layouts and variant.name not in store.layouts:
                    store.set_layout(variant.name, found.layouts[variant.name])
            rows = [dict.fromkeys(names)] * len(theirs)
            for block in parquet.results(content, path, found.table, rows).blocks():
                _keep(store, block, mine)


def _keep(store: Kept, block: Block, mine: Mapping[int, int]) -> None:
    """Keeps the runs of a block that have a number in the new sweep, under that number."""
    places = [i for i, run in enumerate(block.run.tolist()) if run in mine]
    if places:
        taken = block.taken(np.array(places))
        runs = [mine[run] for run in taken.run.tolist()]
        rows = [store.rows[run] for run in runs]
        store.write(0, taken._replace(run=np.array(runs, np.int32), rows=rows), None)


def _alike(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> bool:
    """Whether sweeps differ in nothing but their rows, and no run depends on the others."""
    rest = {*theirs, *ours} - {"grid", "programs", "lengths"}
    alone = theirs.get("halving", "unknown") is None
    return alone and all(theirs.get(name) == ours.get(name) for name in rest)


def _programs(
    description: Mapping[str, Any], keys: Sequence[Key], fixed: Sequence[int]
) -> dict[Key, tuple[str, int]]:
    """The program and length of each combination of the settings that are compiled in."""
    combinations = dict.fromkeys(tuple(key[i] for i in fixed) for key in keys)
    programs = list(zip(description["programs"], description["lengths"], strict=True))
    if len(programs) != len(combinations):  # there are settings that a table does not tell apart
        return {}
    return dict(zip(combinations, programs, strict=True))
