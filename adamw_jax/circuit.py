"""What a composition computes: every machine once, however often it is named.

`chain` and `parallel` say which machine feeds which. Two machines that are made by the
same call and see the same updates put out the same, now and ever after, so they are one:
it works once and keeps one state. In AdaBelief,

    m = momentum(b1)
    surprise = parallel(chain(), m, merge=difference())
    parallel(chain(m, …), chain(surprise, second_moment(b2), …), merge=rms_ratio(eps))

the mean m is computed and kept once, as in the paper. So is the number of steps, which all
bias corrections and schedules of a composition read. In `chain(m, m)` the second mean sees
what the first puts out, and is another machine.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from adamw_jax import trees
from adamw_jax.core import Description, GradientTransformation


class Machine(NamedTuple):
    """A Mealy machine: something that may keep a state, and puts out one value.

    Attributes:
      key: hashable; machines with equal keys and inputs are one.
      init: `params -> state`.
      update: `(inputs, state, params, extra_args) -> (output, state)`.
      has_state: whether it keeps any; without, `init` and `update` give None for it.
    """

    key: Any
    init: Callable[[optax.Params], Any]
    update: Callable[[tuple[Any, ...], Any, Any, dict[str, Any]], tuple[Any, Any]]
    has_state: bool = True


class Wire(NamedTuple):
    """Where a value of a circuit comes from.

    Attributes:
      place: of the machine that puts it out, from 1; 0 for the circuit's own updates.
      wide: whether half-precision leaves have been widened to float32 on the way.
    """

    place: int
    wide: bool = False


SOURCE = Wire(0)
Wiring = Callable[["Circuit", Wire], Wire]


class Circuit:
    """Machines in the order of their work, each with the wires that feed it."""

    def __init__(self):
        self.machines: list[tuple[Machine, tuple[Wire, ...], bool]] = []
        self.wires: dict[Any, Wire] = {}

    def place(self, machine: Machine, *inputs: Wire) -> Wire:
        """The wire out of a machine, which is put in unless it is there."""
        key = machine.key, inputs
        if key not in self.wires:
            wide = bool(inputs) and inputs[0].wide
            self.machines.append((machine, inputs, wide))
            self.wires[key] = Wire(len(self.machines), wide)
        return self.wires[key]

    def add(self, part: optax.GradientTransformation, source: Wire) -> Wire:
        """The wire out of a transformation that is fed by `source`."""
        wiring = getattr(part, "wiring", None)
        return wiring(self, source) if wiring else self.place(_whole(part), source)

    def widened(self, wire: Wire) -> Wire:
        """The same updates with half-precision leaves as float32."""
        return wire if wire.wide else self.place(_WIDEN, wire)._replace(wide=True)

    def init(self, params: optax.Params) -> tuple[Any, ...]:
        """The states of the machines that keep one."""
        sights = params, trees.widen(params)
        states = [(m, m.init(sights[wide])) for m, _, wide in self.machines]
        return tuple(state for machine, state in states if machine.has_state)

    def update(
        self, updates: optax.Updates, states: tuple[Any, ...], params: Any, extra: dict[str, Any]
    ) -> tuple[list[Any], tuple[Any, ...]]:
        """The value on every wire, by place, and the new states."""
        expected = sum(machine.has_state for machine, *_ in self.machines)
        if len(states) != expected:
            raise ValueError(
                f"the state has {len(states)} parts where this composition keeps {expected}: "
                "it is the state of another optimizer. Make one with init"
            )
        sights, values = (params, trees.widen(params)), [updates]
        left, new = iter(states), []
        for machine, inputs, wide in self.machines:
            state = next(left) if machine.has_state else None
            given = tuple(values[wire.place] for wire in inputs)
            value, state = machine.update(given, state, sights[wide], extra)
            values.append(value)
            new += [state] if machine.has_state else []
        return values, tuple(new)


def composed(wiring: Wiring, description: Description) -> GradientTransformation:
    """A composition; its state is the tuple of its machines' states, in order of first use."""
    circuit = Circuit()
    end = wiring(circuit, SOURCE).place

    def init(params):  # a function, which copies share as Optax's do, and no bound method
        return circuit.init(params)

    def update(updates, state, params=None, **extra_args):
        values, state = circuit.update(updates, state, params, extra_args)
        return values[end], state

    return GradientTransformation(init, update, description, wiring)


def single(wiring: Wiring, description: Description) -> GradientTransformation:
    """A piece by itself: like a composition, but with its only state bare, or `EmptyState`."""
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
    """Equal for equal calls. Arrays are never looked into: only the same one is equal."""
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


def _whole(part: Any) -> Machine:
    """A transformation that keeps its state to itself, such as any from elsewhere."""
    transformation: Any = optax.with_extra_args_support(part)

    def update(inputs, state, params, extra_args):
        return transformation.update(*inputs, state, params, **extra_args)

    return Machine(key_of(getattr(part, "description", None) or part), part.init, update)


_WIDEN = Machine(
    "widen",
    lambda params: None,
    lambda inputs, state, params, extra_args: (trees.widen(inputs[0]), None),
    has_state=False,
)
