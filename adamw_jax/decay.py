"""Weight decay. *Where it stands* is the whole difference between Adam+L2 and AdamW.

Before the adaptive scaling, λθ is part of the gradient and is divided by √v with it:
L2 regularization. After it, every parameter shrinks by the same share: decoupled decay
(AdamW, arXiv 1711.05101). The arithmetic is the same function, u ← u + λθ, and since it
adds, it always stands before the stage that flips the sign.

What λ means depends on what follows. In PyTorch's and Optax's AdamW the learning rate
does, and a step takes away α·λ; in the paper's Algorithm 2 only the schedule η follows,
and a step takes away η·λ:

    chain(adaptive, decoupled_weight_decay(wd), scale_by_learning_rate(alpha))
    chain(adaptive, scale(alpha), decoupled_weight_decay(lam), scale_by_learning_rate(eta))
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

from adamw_jax import numerics
from adamw_jax.core import GradientTransformation, describe, jitted
from adamw_jax.hyperparameters import non_negative_or_schedule
from adamw_jax.schedules import scheduled_stage


def decoupled_weight_decay(
    weight_decay: optax.ScalarOrSchedule, mask: optax.MaskOrFn = None
) -> GradientTransformation:
    """Adds a share of the parameters to the updates: u ← u + λθ, after the scaling.

    Args:
      weight_decay: λ ≥ 0, a number, a 0-d array or a schedule (step → number).
      mask: which parameters decay, all by default: a tree of booleans with the
        structure of the parameters or a prefix of it, or a function that makes one from
        a tree like the parameters. The function is called with the parameters at `init`
        and with the updates afterwards; under `nnx.Optimizer` the first hold
        `Variable`s and the second arrays.

    Returns:
      A transformation with state `ScheduleState` under a schedule, else
      `optax.EmptyState`; with a mask, `optax.MaskedState` around it. Its update needs
      `params`.

    Raises:
      ValueError: λ is negative, infinite, NaN or no number; the mask does not match the
        parameters (with the paths that differ); the parameters are missing.
    """
    return _weight_decay(decoupled_weight_decay, "weight_decay", weight_decay, mask)


def l2_regularization(
    l2: optax.ScalarOrSchedule, mask: optax.MaskOrFn = None
) -> GradientTransformation:
    """Adds the gradient of (λ′/2)‖θ‖² to the gradients: g ← g + λ′θ, before the scaling.

    The very same function as `decoupled_weight_decay`, under the name it has when it
    stands first. For gradient descent the two agree where λ′ = λ/α (AdamW,
    arXiv 1711.05101, Proposition 1); for Adam they do not (Proposition 2).

    Args:
      l2: λ′ ≥ 0, a number, a 0-d array or a schedule (step → number).
      mask: see `decoupled_weight_decay`.

    Returns:
      A transformation, as `decoupled_weight_decay`.

    Raises:
      ValueError: as `decoupled_weight_decay`.
    """
    return _weight_decay(l2_regularization, "l2", l2, mask)


def _weight_decay(constructor, name, value, mask):
    description = describe(constructor, value, mask=mask)
    value = non_negative_or_schedule(name, value)
    stage = scheduled_stage(_add_decayed, value, description, needs_params=True)
    if mask is None:
        return stage
    masked = optax.masked(stage, _checked(mask))

    def update(updates, state, params=None, **extra_args):
        # A mask made from the updates has no place for parameters without an update.
        params = numerics.only_updated(params, updates)
        return masked.update(updates, state, params, **extra_args)

    return GradientTransformation(masked.init, update, description)


@jitted
def _add_decayed(weight_decay, updates, params):
    rate = numerics.scalar(weight_decay)

    def add(u, p):
        return u + rate(u) * p

    return numerics.cast_like(numerics.map_leaves(add, updates, params), updates)


def _checked(mask: Any) -> Callable[[Any], Any]:
    """The mask as a function that refuses trees it does not match."""
    # A module of masks can be called and is a tree all the same: its leaves are booleans.
    leaves = jax.tree.leaves(mask)
    is_function = bool(leaves) and all(map(callable, leaves))

    def mask_of(tree):
        marks = _fitted(mask(tree) if is_function else mask, tree)
        for path, mark in jax.tree_util.tree_leaves_with_path(marks):
            if not isinstance(mark, bool | np.bool_) and numerics.dtype_of(mark) != np.bool_:
                raise ValueError(f"mask must hold booleans, got {mark!r} at {_listed([path])}")
        return marks

    return mask_of


def _fitted(mask: Any, tree: Any) -> Any:
    try:
        jax.tree.map(lambda mark, subtree: None, mask, tree)
        return mask
    except ValueError as error:
        try:
            # A mask of nnx Variables, which hold a mark each, for updates that are arrays.
            return jax.tree.map(lambda _, variable: _content(variable), tree, mask)
        except ValueError:
            raise ValueError(_mismatch(mask, tree, error)) from error


def _content(variable: Any) -> Any:
    leaves = jax.tree.leaves(variable)
    if isinstance(variable, dict | list | tuple) or len(leaves) != 1:
        raise ValueError("a container where a mark should be")
    return leaves[0]


def _mismatch(mask: Any, tree: Any, error: ValueError) -> str:
    marks = [tuple(path) for path, _ in jax.tree_util.tree_leaves_with_path(mask)]
    leaves = {
        tuple(path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree, is_leaf=numerics.is_none)
    }
    unmarked = [
        path
        for path, leaf in leaves.items()
        if leaf is not None and not any(path[: len(mark)] == mark for mark in marks)
    ]
    unused = [m for m in marks if not any(path[: len(m)] == m for path in leaves)]
    differences = [f"parameters without a mask: {_listed(unmarked)}"] if unmarked else []
    differences += [f"masks without a parameter: {_listed(unused)}"] if unused else []
    # The paths agree where only the containers differ, a list for a tuple; JAX says where.
    differences = differences or [" ".join(str(error).split())]
    return "; ".join(["mask does not match the parameters", *differences])


def _listed(paths: list[tuple[Any, ...]]) -> str:
    return ", ".join(jax.tree_util.keystr(path) or "the root" for path in paths)
