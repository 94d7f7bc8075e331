"""How every piece is made, the library's own and yours.

A piece is written leaf by leaf. Its arithmetic takes the hyperparameters and returns a
function of arrays:

    def _clip(limit):                   u ← u / (1 + |u|/limit): stateless
        return lambda u: u / (1 + jnp.abs(u) / limit)

    def _sum():                         s ← s + g²: it keeps a state
        def step(g, s):
            s = s + g * g
            return s, s                 the new update, the new state
        return step

    def _warm_up(steps, t):             u ← min(1, t/steps) u: it counts the steps
        return lambda u: jnp.minimum(t / steps, 1) * u

docs/your-own-piece.md builds one, and `adamw_jax.testing` checks that everything holds for it
that holds for the library's own.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from adamw_jax import trees
from adamw_jax.circuit import Machine, key_of_call, single
from adamw_jax.core import Description, GradientTransformation, jitted
from adamw_jax.encodings import Encoding


class StepsState(NamedTuple):
    """The number of steps, which all counting pieces of a composition share.

    Attributes:
      count: the number of updates so far, an int32 scalar; it stays at the largest int32.
    """

    # Optax's name, though tuples have a method of that name.
    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]


def piece(
    description: Description,
    arithmetic: Callable[..., Callable[..., Any]],
    hyperparameters: tuple[Any, ...] = (),
    *,
    state: type[Any] | None = None,
    start: Callable[[optax.Params], Any] = trees.zeros,
    encoding: Encoding | None = None,
    counts: bool = False,
    reads: Machine | None = None,
    params_for: str | None = None,
) -> GradientTransformation:
    """Makes a transformation from arithmetic on single leaves.

    The arithmetic is compiled once for all optimizers that are ever built, with its
    hyperparameters as operands, so it must be a function defined in a module, not a
    closure. It is called once for each dtype among the leaves. Hyperparameters and arrays
    come in the *working precision* of the leaf, which is float32 for half precision, and
    the results are rounded to the dtypes of the updates and the state.

    Args:
      description: `describe(constructor, …)`: the call that made the piece, which `repr`
        shows. Pieces from equal calls that see the same updates are one; see `circuit`.
      arithmetic: takes the hyperparameters and, with `counts`, the number t of this step,
        from 1, after them. Returns a function of a leaf of the updates, a leaf of the state
        if there is one, and with `params_for` a leaf of the parameters, in this order. That
        function returns the new update or, if there is a state, (new update, new state).
      hyperparameters: numbers, 0-d arrays, schedules, or pytrees of numbers and arrays, all
        checked already (see `adamw_jax.hyperparameters`). A schedule is called with the
        number of steps before this one, as in Optax.
      state: the class of the state, a named tuple with one field, which holds a tree like
        the parameters; None for a piece without a state.
      start: makes the first such tree from the parameters; by default zeros in working
        precision.
      encoding: how the tree is kept between two steps, where `start` makes it so, too; None to
        round it to the dtypes that it has at the start. See `adamw_jax.encodings.zeros_in`.
      counts: whether the arithmetic depends on the step. The count is kept in a
        `StepsState`, one for the whole composition.
      reads: a machine whose output is a scalar, one more hyperparameter after the others. It
        sees the number of steps, as a schedule does, if the piece reads it.
      params_for: what the parameters are needed for, to be named in the message if they are
        missing; None where they are not needed.

    Returns:
      A transformation. By itself its state is a `state`, a `StepsState`, the two in a tuple,
      the `StepsState` first, or `optax.EmptyState`. It raises a ValueError for leaves that
      are not floating-point or complex, with their paths.
    """

    def init(params):
        trees.check_floating(params)
        return state and state(start(params))

    def update(inputs, old, params, extra_args):
        del extra_args
        if state:
            check_state(old, state)
        updates, *scalars = inputs
        count, read = (scalars[:1], scalars[1:]) if reads_count else ([], scalars)
        # A schedule is called outside `_run`: inside, it would be compiled anew for each optimizer.
        given = [*(h(*count) if callable(h) else h for h in hyperparameters), *read]
        others = [trees.only_updated(params, updates, params_for)] if params_for else []
        memory, t = old or (), count if counts else []
        step = count if is_random else []
        updates, new = _run(arithmetic, given, t, updates, memory, others, encoding, step)
        return updates, state and state(*new)

    key = key_of_call(description, arithmetic, hyperparameters)
    machine = Machine(key, init, update, state is not None, description)
    is_random = encoding is not None and encoding.seed is not None
    reads_count = counts or is_random or any(map(callable, hyperparameters))

    def wiring(circuit, source):
        count = [circuit.place(STEPS)] if reads_count else []
        read = [circuit.place(reads, *count)] if reads else []
        return circuit.place(machine, source, *count, *read)

    return single(wiring, description)


@functools.partial(jitted, static_argnums=0)
def _run(arithmetic, hyperparameters, count, updates, memory, others, encoding, step):
    # Added as floats, since the count may be the largest integer already.
    t = [n.astype(float) + 1 for n in count]
    decoded = [encoding.decode(kept) for kept in memory] if encoding else memory
    new, *remembered = trees.map_arithmetic(
        arithmetic, (*hyperparameters, *t), updates, *decoded, *others, outputs=1 + len(memory)
    )
    pairs = zip(remembered, memory, strict=True)
    if encoding:
        (name,) = memory._fields
        kept = [encoding.after_step(*pair, name, *step) for pair in pairs]
    else:
        kept = [trees.cast_like(*pair) for pair in pairs]
    return trees.cast_like(new, updates), kept


def check_state(state: Any, expected: type[Any]) -> None:
    """Checks that a machine got its own state.

    Raises:
      ValueError: it is of another class.
    """
    if not isinstance(state, expected):
        raise ValueError(
            f"the state has a {type(state).__name__} where this optimizer keeps a "
            f"{expected.__name__}: it is the state of another optimizer. Make a new one with "
            "this one's init"
        )


def _count(inputs, state, params, extra_args):
    del inputs, params, extra_args
    check_state(state, StepsState)
    return state.count, _next(state)


@jitted
def _next(state: StepsState) -> StepsState:
    return StepsState(jnp.asarray(optax.safe_increment(state.count)))


# Its output is the number of steps before this one.
STEPS = Machine("steps", lambda params: StepsState(jnp.zeros([], jnp.int32)), _count)
