"""Which parameters an optimizer decays, towards what, how fast, and which rule decided it.

The decay is measured, not computed from the hyperparameters, so that any library's optimizer
will do: without a gradient, what a step takes away is decay.
"""

import math
import numbers

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamw_jax import trees
from adamw_jax.combine import check_transformations
from adamw_jax.conventions import timescale_from_per_step
from adamw_jax.hyperparameters import positive
from adamw_jax.parameters import parameters
from adamw_jax.reports.decay_table import DecayOverRun, DecayReport, DecayRow
from adamw_jax.reports.measured_decay import measured_decay
from adamw_jax.reports.reasons import joined, reasons


def decay_report(
    optimizer: optax.GradientTransformation,
    params: optax.Params,
    *,
    steps_per_epoch: float | None = None,
    step: int = 0,
    steps: int | None = None,
) -> DecayReport:
    """Measures how much of each parameter a step takes away, and says which rule decided it.

    The optimizer takes steps without a gradient from parameters of several sizes, above all from
    θ = 1 and θ = 2. A decay takes λ (θ − c) from each: towards zero, or towards other weights c,
    which are fixed or follow the parameters; then λ is a fraction of the distance. Where larger
    parameters lose no more, as in Huber's decay, the report says up to which size λ holds.

    The step is compiled and returns one number for each array, so that a model of any size
    fits, and abstract parameters (`jax.eval_shape`) will do. Where the decay depends on the
    gradient, the report shows the decay without one: for `cautious_weight_decay` its value
    where it applies, for LAMB the trust ratio of the decay alone. Where momentum follows L2, it
    shows the first step. `optax.MultiSteps` moves nothing in most steps, and the wrappers for
    bfloat16 parameters nothing by so little: report on the optimizer inside them.

    With `steps`, every step of a run is measured in the same way, from the first state with its
    counts set to that step, so that schedules are followed and nothing else is. An optimizer
    that remembers the parameters first takes all steps before at θ = 1, since an average of them
    begins where they are: its first step shows no decay. Where a step takes away something else
    after those before it, as with L2 under momentum or in Schedule-Free, there is no fixed
    fraction. In place of each array there is a single number, unless that makes a difference in
    the step that takes most.

    Args:
      optimizer: any Optax transformation. The report names rules only from this library's
        masks and groups by rule.
      params: the parameters, or a tree with their shapes and dtypes.
      steps_per_epoch: > 0; if given, the timescale is in epochs.
      step: ≥ 0, the number of updates before the one shown, which is what schedules see.
      steps: ≥ 1; if given, the report is on so many steps from `step` on.

    Returns:
      A report, to be printed. With `steps`, its rows have `over_run`.

    Raises:
      ValueError: an argument is out of range, a parameter is not floating-point or
        complex (with the paths), or the hyperparameters are tracers.
    """
    check_transformations("decay_report", [optimizer])
    trees.check_floating(params, arrays_only=True)
    per_epoch = positive("steps_per_epoch", 1 if steps_per_epoch is None else steps_per_epoch)
    if not (isinstance(step, numbers.Integral) and 0 <= step < 2**31):
        raise ValueError(f"step must be a whole number in [0, 2³¹), got {step!r}")
    if steps is not None and not (
        isinstance(steps, numbers.Integral) and 0 < steps <= 2**31 - step
    ):
        raise ValueError(f"steps must be a whole number in [1, 2³¹ − step], got {steps!r}")
    found, shapes = parameters(params), jax.eval_shape(lambda tree: tree, params)
    leaves = jax.tree.leaves(shapes, is_leaf=trees.is_none)
    decays = measured_decay(optimizer, shapes, step + np.arange(steps or 1, dtype=np.int32))
    why = reasons(getattr(optimizer, "description", None), found)

    def timescale(decay):
        return timescale_from_per_step(decay, per_epoch) if decay >= 0 else math.nan

    def row(parameter, leaf, found, why):
        decays = found.fractions
        decay = float(decays[np.abs(decays).argmax()])  # NaN, if there is one
        if 0 < decay < float(jnp.finfo(leaf.dtype).eps) / 4:
            why = joined(why, f"too small for {leaf.dtype} without a gradient")
        over_run = None if steps is None else DecayOverRun(decays, timescale(float(decays[-1])))
        cells = parameter.path, parameter.kind, leaf.shape, decay, timescale(decay), why
        return DecayRow(*cells, over_run, found.towards, found.up_to)

    rows = zip(found, leaves, decays, why, strict=True)
    unit = "steps" if steps_per_epoch is None else "epochs"
    return DecayReport(tuple(row(*cells) for cells in rows if cells[1] is not None), unit)
