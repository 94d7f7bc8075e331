"""An optimizer whose step is done in one pass over memory, behind the same interface."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamw_jax import numerics, trees
from adamw_jax.core import GradientTransformation, describe, jitted
from adamw_jax.kernels.call import Coefficients, Leaf, Moved, formula, in_one_pass
from adamw_jax.kernels.library import dtypes, missing
from adamw_jax.kernels.shape import Numbers, Shape
from adamw_jax.moments import MomentumState, SecondMomentState
from adamw_jax.piece import STEPS, StepsState

# XLA takes longer to compile a call than its leaves are worth if it has many more.
LEAVES_OF_A_CALL = 128


class Fused(GradientTransformation):
    """What `fused` makes: a transformation that can also apply its updates itself.

    Attributes:
      step: `(updates, state, params, **extra_args) -> (params, state)`: `update` and
        `optax.apply_updates` in one pass, which reads and writes 28 bytes of a float32 parameter
        instead of 40.
    """

    step: Any = None


def fused(optimizer: optax.GradientTransformation) -> Fused:
    """The same optimizer, whose step on a CPU is one pass over memory.

    XLA's CPU compiler makes three loops of a step of AdamW, which read and write 40 bytes of a
    float32 parameter together; this makes one, in C++, for all leaves. The composition stays what
    defines the step: the result is the same but for rounding, in the same state, so that one can
    take over from the other at any moment. (Where λ or α is 0, an infinite parameter stays as it
    is, of which the composition makes NaN.) It works under `jit`, `vmap`, `scan`, `grad` and
    sharding. Donate the parameters and the state (or carry them in a `scan`): otherwise they are
    copied first.

    The step is the composition's where no loop was compiled (see `missing`), where JAX's default
    backend is not the CPU, and for leaves that the loop does not know: those that are complex, or
    of mixed or other dtypes than float32, float64, bfloat16 and float16.

    Args:
      optimizer: `adam`, `adam_l2`, `adamw`, `adamwr`, `decayed_per_step(adam(…), …)`, or another
        composition of Adam's shape, which `adamw_jax.kernels.shape` shows.

    Returns:
      A `Fused`, whose state is that of the optimizer.

    Raises:
      ValueError: the optimizer has another shape; the message names what does not fit.
    """
    shape = Shape(optimizer)

    def advance(updates, state, params, is_applied, extra):
        if missing() or jax.default_backend() != "cpu" or not _fits(shape, state, params):
            updates, state = optimizer.update(updates, state, params, **extra)
            return optax.apply_updates(params, updates) if is_applied else updates, state
        return _advance(shape, updates, state, params, is_applied)

    def update(updates, state, params=None, **extra_args):
        return advance(updates, state, params, False, extra_args)

    def step(updates, state, params, **extra_args):
        return advance(updates, state, params, True, extra_args)

    made: Any = Fused(optimizer.init, update, describe(fused, optimizer))
    made.step = step
    return made


def _advance(shape: Shape, updates: Any, state: Any, params: Any, is_applied: bool) -> Any:
    """A step: the new updates or parameters, and the new state."""
    trees.check_floating(updates, what="update")
    states = state if type(state) is tuple else (state,)
    count, mu, nu = (
        next((getattr(s, name) for s in states if isinstance(s, kind)), None)
        for kind, name in ((StepsState, "count"), (MomentumState, "mu"), (SecondMomentState, "nu"))
    )
    given, structure = jax.tree.flatten(updates, is_leaf=trees.is_none)
    needed = params if is_applied or shape.needs_params else None
    columns = (
        [None] * len(given) if tree is None else structure.flatten_up_to(tree)
        for tree in (needed, mu, nu)
    )
    rows = [Leaf(*row) for row in zip(given, *columns, strict=True)]
    moving = [i for i, row in enumerate(rows) if row.g is not None]
    numbers = shape.numbers(states, count, updates)
    moved = _moved(numbers, count, [rows[i] for i in moving], tuple(moving), is_applied)
    new = [Moved(row.p if is_applied else None, row.m, row.v) for row in rows]
    for i, leaf in zip(moving, moved, strict=True):
        new[i] = leaf
    out, mu, nu = (structure.unflatten(column) for column in zip(*new, strict=True))

    def stepped(old):
        match old:
            case MomentumState():
                return MomentumState(mu)
            case SecondMomentState():
                return SecondMomentState(nu)
            case StepsState():
                return STEPS.update((), old, None, {})[1]
            case optax.MaskedState():
                return old._replace(inner_state=stepped(old.inner_state))
        return old

    new_states = tuple(map(stepped, states))
    return out, new_states if state is states else new_states[0]


@functools.partial(jitted, static_argnums=(3, 4))
def _moved(numbers, count, leaves, places, is_applied):
    """A step of these leaves, whose places among all leaves are given: those are as masks are."""
    t = None if count is None else count.astype(float) + 1
    groups: dict[Any, list[int]] = {}
    for i, leaf in enumerate(leaves):
        groups.setdefault(_kind(leaf), []).append(i)
    moved: list[Any] = [None] * len(leaves)
    for (dtype, varying, by_loop), members in groups.items():
        for start in range(0, len(members), LEAVES_OF_A_CALL):
            chosen = members[start : start + LEAVES_OF_A_CALL]
            of_each = _coefficients(numbers, t, dtype, [places[i] for i in chosen])
            some = [leaves[i] for i in chosen]
            if by_loop:
                varied = functools.partial(_varied, varying)
                made = in_one_pass(is_applied, *jax.tree.map(varied, (_table(of_each), some)))
            else:
                rows = [Coefficients(*(c[k] for c in of_each)) for k in range(len(some))]
                made = [formula(*of, is_applied) for of in zip(rows, some, strict=True)]
            for i, leaf in zip(chosen, made, strict=True):
                moved[i] = leaf
    return moved


def _kind(leaf: Leaf) -> tuple[np.dtype, frozenset[str], bool]:
    """The dtype of a leaf's numbers, the mesh axes along which it varies; if the loop knows it."""
    arrays = [x for x in leaf if x is not None]
    known = {np.dtype(np.float64), np.dtype(np.float32), *dtypes()}
    working = {numerics.working_dtype(x) for x in arrays}
    alike = len(working) == 1 and len({jnp.shape(x) for x in arrays}) == 1
    varying = frozenset().union(*(getattr(jax.typeof(x), "vma", ()) for x in arrays))
    dtype = np.dtype(jnp.finfo(jnp.result_type(*working)).dtype)
    return dtype, varying, alike and {x.dtype for x in arrays} <= known


def _varied(axes: frozenset[str], x: jax.Array) -> jax.Array:
    """The same, as varying along these mesh axes: in `shard_map`, all operands of a call must."""
    missing_axes = tuple(axes - getattr(jax.typeof(x), "vma", frozenset()))
    return jax.lax.pcast(x, missing_axes, to="varying") if missing_axes else x


def _coefficients(numbers: Numbers, t: Any, dtype: np.dtype, places: list[int]) -> Coefficients:
    """The coefficients of the leaves at these places; each field [leaves]."""
    numbers, t = jax.tree.map(lambda x: jax.lax.convert_element_type(x, dtype), (numbers, t))
    one = jnp.ones([], dtype)

    def through(factors):
        scale, decay, decays = one, jnp.zeros([len(places)], dtype), np.zeros([len(places)], bool)
        for factor in factors:
            if factor.sign is None:
                marks = np.array([factor.marks is None or factor.marks[i] for i in places])
                decay += jnp.where(marks, factor.value, 0)
                decays |= marks
            else:
                scale, decay = (factor.sign * factor.value * x for x in (scale, decay))
        return scale, jnp.where(decays, decay, 0)  # exactly, whatever the factors are

    def of_moment(moment):
        if moment is None:
            return one, one
        correction = moment.correction
        weights = one if correction is None else numerics.sum_of_weights(correction, t)
        return moment.rate.complement, 1 / weights

    return Coefficients(
        *(
            jnp.broadcast_to(x, (len(places),))
            for x in (
                *of_moment(numbers.first),
                *of_moment(numbers.second),
                numbers.eps,
                numbers.eps_root,
                *through(numbers.before),
                *through(numbers.after),
            )
        )
    )


def _table(coefficients: Coefficients) -> jax.Array:
    """The coefficients as an array, [leaves, 10]."""
    shape = coefficients.scale.size, len(coefficients)
    column = jax.lax.broadcasted_iota(jnp.int32, shape, 1)
    table = jnp.zeros(shape, coefficients.scale.dtype)
    # XLA makes one loop of this, and of a concatenation eleven.
    for i, values in enumerate(coefficients):
        table = jnp.where(column == i, values[:, None], table)
    return table


def _fits(shape: Shape, state: Any, params: Any) -> bool:
    """Whether state and parameters are those of the composition; if not, that one says why."""
    states = state if type(state) is tuple else (state,)
    return shape.fits(states) and not (shape.needs_params and params is None)
