"""States from and to Optax."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from adamw_jax.interchange.contents import contents_of, counted, filled
from adamw_jax.interchange.encoded import decoded, filled_and_encoded
from adamw_jax.interchange.iterates import average_from_iterate, iterate_from_average
from adamw_jax.interchange.meaning import quantity_of, sum_of_roots

OPTAX, OURS = "Optax's", "this optimizer's"


def from_optax(
    optimizer: optax.GradientTransformation,
    params: optax.Params,
    state: Any,
    *,
    count: int | None = None,
    narrow: bool = False,
) -> Any:
    """The state with which an optimizer of this library goes on where one of Optax stopped.

        state = from_optax(adamw(1e-3), params, optax_state)

    Moments are found by their names, `mu`, `nu`, `nu_max`, `trace`, …, wherever they stand in
    nested chains, masks, partitions and injected hyperparameters. Wrappers whose state is more
    than that of what they wrap, such as `optax.MultiSteps`, must be around both optimizers.

    A state does not say all that its optimizer does: `optimizer` must be the same one with the
    same hyperparameters (Optax's Adam and AdaMax have states of one class). docs/from-optax.md
    says how to check it.

    Args:
      optimizer: of this library, perhaps in a wrapper of Optax.
      params: the parameters, or their shapes.
      state: that of an Optax optimizer in the middle of a run, with concrete arrays, or such a
        state with dictionaries for named tuples, as Orbax reads it without a template.
      count: the number of steps so far, where `state` has none and the optimizer needs it.
      narrow: whether moments may be rounded to a dtype with fewer digits, such as `mu_dtype`, or
        to the nearest codes of an encoding.

    Returns:
      A state as of `optimizer.init(params)`, with the arrays of `state`. Moments of bfloat16
      parameters are widened to float32.

    Raises:
      ValueError: a moment is missing or left over, a shape differs, a dtype has fewer digits, or
        counts disagree; the message shows both sides by path. Or AMSGrad's maximum is taken
        elsewhere.
    """
    contents = counted(contents_of(state, params, OPTAX), count, OPTAX)
    contents = _with_roots(-1, optimizer, contents)
    contents = average_from_iterate(optimizer, params, contents)
    template = jax.eval_shape(optimizer.init, params)
    quantity = quantity_of(optimizer, infinity=False)
    return filled_and_encoded(
        template, params, contents, given=OPTAX, wanted=OURS, narrow=narrow, renamed=quantity
    )


def to_optax(
    optimizer: optax.GradientTransformation,
    params: optax.Params,
    state: Any,
    theirs: optax.GradientTransformation,
    *,
    count: int | None = None,
    narrow: bool = False,
) -> Any:
    """The state with which an optimizer of Optax goes on where one of this library stopped.

        optax_state = to_optax(adamw(1e-3), params, state, optax.adamw(1e-3))

    Args:
      optimizer: of this library, perhaps in a wrapper of Optax.
      params: the parameters, or their shapes.
      state: that of `optimizer`, with concrete arrays.
      theirs: the optimizer that is to go on.
      count: the number of steps so far, where `state` has none: Optax's Lion counts.
      narrow: as in `from_optax`. Optax's moments of bfloat16 parameters are bfloat16.

    Returns:
      A state as of `theirs.init(params)`.

    Raises:
      ValueError: as `from_optax`.
    """
    quantity = quantity_of(optimizer, infinity=False)
    contents = {
        quantity(name): array for name, array in contents_of(decoded(state), params, OURS).items()
    }
    contents = _with_roots(+1, optimizer, counted(contents, count, OURS))
    contents = iterate_from_average(optimizer, params, contents)
    template = jax.eval_shape(theirs.init, params)
    return filled(template, params, contents, given=OURS, wanted=OPTAX, narrow=narrow)


def _with_roots(sign: int, optimizer: Any, contents: dict[str, Any]) -> dict[str, Any]:
    """The contents with AdaBelief's sum of eps_root added to the second moment, or taken away."""
    added = sign * sum_of_roots(optimizer, contents.get("count", 0))
    if not added:
        return contents
    return {
        name: jnp.maximum(array + added, 0) if name.partition("/")[0] == "nu" else array
        for name, array in contents.items()
    }
