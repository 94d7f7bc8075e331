"""States of earlier versions of this library, whose parts may have stood elsewhere."""

from typing import Any

import jax
import optax

from adamw_jax.interchange.contents import contents_of, filled


def from_earlier_version(
    optimizer: optax.GradientTransformation, params: optax.Params, state: Any
) -> Any:
    """The state of an optimizer from one that an earlier version of this library made.

    Fields keep their names and what they mean, whatever they are arranged in, so they are found
    by name. docs/checkpoints.md says what is promised.

    Args:
      optimizer: the same optimizer, now.
      params: the parameters, or their shapes.
      state: as it was, or with dictionaries for named tuples, as Orbax reads it without a template.

    Returns:
      A state as of `optimizer.init(params)`, with the arrays of `state`.

    Raises:
      ValueError: as `from_optax`.
    """
    contents = contents_of(state, params, "the earlier")
    template = jax.eval_shape(optimizer.init, params)
    return filled(template, params, contents, given="the earlier", wanted="this optimizer's")
