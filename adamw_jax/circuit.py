"""What a composition computes: each machine runs once, however often it is named.

`chain` and `parallel` say which machine feeds which. Two machines that are made by the
same call and see the same updates always have the same output, so they are one machine,
which runs once and keeps one state. In AdaBelief,

    m = momentum(b1)
    surprise = parallel(chain(), m, merge=difference())
    parallel(chain(m, …), chain(surprise, second_moment(b2), …), merge=rms_ratio(eps))

the mean m is computed and kept once, as in the paper. So is the number of steps, which all
bias corrections and schedules of a composition read. In `chain(m, m)` the second mean sees
the output of the first, so it is another machine.

How many states there are therefore depends on what is equal: `parallel(momentum(a), momentum(b),
…)` keeps two, but only one if a = b. An array equals only itself, since it is never read.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from adamw_jax import trees
from adamw_jax.core import Description, GradientTransformation, description_of


class Machine(NamedTuple):
    """A Mealy machine: it may keep a state, and has one output.

    Attributes:
      key: hashable; machines with equal keys and inputs are one.
      init: `params -> state`.
      update: `(inputs, state, params, extra_args) -> (output, state)`.
      has_state: whether it keeps a state; if not, `init` and `update` return None for it.
      made_by: the call that made it, as data, or the function or foreign transformation that it
        runs; None for what only serves other machines.
    """

    key: Any
    init: Callable[[optax.Params], Any]
    update: Callable[[tuple[Any, ...], Any, Any, dict[str, Any]], tuple[Any, Any]]
    has_state: bool = True
    made_by: Any = None


class Wire(NamedTuple):
    """Where a value of a circuit comes from.

    Attributes:
      place: the number, from 1, of the machine whose output it is; 0 for the updates that
        enter the circuit.
      wide: whether half-precision leaves have been widened to float32 on the way.
    """

    place: int
    wide: bool = False


SOURCE = Wire(0)
Wiring = Callable[["Circuit", Wire], Wire]


class Circuit:
    """Machines in the order in which they run, each with the wires that feed it."""

    def __init__(self):
        self.machines: list[tuple[Machine, tuple[Wire, ...], bool]] = []
        self.wires: dict[Any, Wire] = {}

    def place(self, machine: Machine, *inputs: Wire) -> Wire:
        """The output wire of a machine, which is added unless the circuit has it already."""
        key = machine.key, inputs
        if key not in self.wires:
            wide = bool(inputs) and inputs[0].wide
            self.machines.append((machine, inputs, wide))
            self.wires[key] = Wire(len(self.machines), wide)
        return self.wires[key]

    def add(self, part: optax.GradientTransformation, source: Wire) -> Wire:
        """The output wire of a transformation that is fed by `source`."""
        wiring = getattr(part, "wiring", None)
        return wiring(self, source) if wiring else self.place(_whole(part), source)

    def widened(self, wire: Wire) -> Wire:
        """The same updates with half-precision leaves as float32."""
        return wire if wire.wide else self.place(WIDEN, wire)._replace(wide=True)

    def init(self, params: optax.Params) -> tuple[Any, ...]:
        """The states of the machines that keep one."""
        views = self._views(params)
        states = [(m, m.init(views[wide])) for m, _, wide in self.machines]
        return tuple(state for machine, state in states if machine.has_state)

    def update(
        self, updates: optax.Updates, states: tuple[Any, ...], params: Any, extra: dict[str, Any]
    ) -> tuple[list[Any], tuple[Any, ...]]:
        """The values on all wires, indexed by place, and the new states."""
        expected = sum(machine.has_state for machine, *_ in self.machines)
        if not isinstance(states, tuple | list) or len(states) != expected:
            parts = f"{len(states)} parts" if isinstance(states, tuple | list) else repr(states)
            raise ValueError(
                f"the state has {parts} where this composition keeps {expected}: "
                "it is the state of another optimizer. Make a new one with this one's init"
            )
        views, values = self._views(params), [updates]
        left, new = iter(states), []
        for machine, inputs, wide in self.machines:
            state = next(left) if machine.has_state else None
            given = tuple(values[wire.place] for wire in inputs)
            value, state = machine.update(given, state, views[wide], extra)
            values.append(value)
            new += [state] if machine.has_state else []
        return values, tuple(new)

    def _views(self, params: Any) -> tuple[Any, Any]:
        """The parameters as they are and, if a machine needs them so, widened to float32."""
        return params, trees.widen(params) if any(wide for *_, wide in self.machines) else None


def composed(wiring: Wiring, description: Description) -> GradientTransformation:
    """A composition; its state is the tuple of its machines' states, in order of first use."""
    circuit = Circuit()
    end = wiring(circuit, SOURCE).place

    def init(params):  # a function, not a bound method: copies must share it, as in Optax
        return circuit.init(params)

    def update(updates, state, params=None, **extra_args):
        values, state = circuit.update(updates, state, params, extra_args)
        return values[end], state

    return GradientTransformation(init, update, description, wiring)


def single(wiring: Wiring, description: Description) -> GradientTransformation:
    """A piece by itself: a composition, but a single state is not wrapped in a tuple.

    Its state is `EmptyState` if none of its machines keeps one.
    """
    whole = composed(wiring, description)

    def init(params):
        return _bare(whole.init(params))

    def update(updates, state, params=None, **extra_args):
        states = () if isinstance(state, optax.EmptyState) else state
        states = states if type(states) is tuple else (states,)
        updates, states = whole.update(updates, states, params, **extra_args)
        return updates, _bare(states)

    return GradientTransformation(init, update, description, wiring)


def _bare(states: Any) -> Any:
    return states if len(states) > 1 else states[0] if states else optax.EmptyState()


def key_of(value: Any) -> Any:
    """A key that is equal for equal calls. Arrays are compared by identity, never by value."""
    match value:
        case Description(constructor, args, kwargs):
            return constructor, key_of(args), key_of(kwargs)
        case tuple() | list():
            return type(value), *map(key_of, value)
        case dict():
            return tuple((key, key_of(inner)) for key, inner in value.items())
        case jax.Array() | np.ndarray():
            return "array", id(value)
    try:
        hash(value)
    except TypeError:
        return "object", id(value)
    return type(value), value


def key_of_call(
    description: Description | None, arithmetic: Callable[..., Any], hyperparameters: Any
) -> Any:
    """The key of a piece or merge, correct even if the description leaves out a number."""
    numbers = [x for x in jax.tree.leaves(hyperparameters) if isinstance(x, int | float)]
    return key_of(description), arithmetic, key_of(numbers)


def _whole(part: Any) -> Machine:
    """The machine of a transformation that is taken whole, such as one from another library."""
    transformation: Any = optax.with_extra_args_support(part)

    def update(inputs, state, params, extra_args):
        return transformation.update(*inputs, state, params, **extra_args)

    made_by = description_of(part) or part
    return Machine(key_of(made_by), part.init, update, made_by=made_by)


WIDEN = Machine(
    "widen",
    lambda params: None,
    lambda inputs, state, params, extra_args: (trees.widen(inputs[0]), None),
    has_state=False,
)
