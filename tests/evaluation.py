"""Evaluates the equations that an optimizer writes."""

import ast

import numpy as np

from adamw_jax.notation.calls import remade
from adamw_jax.notation.derivation import Group

FUNCTIONS = {
    "sqrt": np.sqrt,
    "abs": np.abs,
    "sign": np.sign,
    "max": np.maximum,
    "mean": np.mean,
    "indicator": np.float64,
    "clip": lambda u, limit: np.clip(u, -limit, limit),
}


def flat(equations, rule):
    """The lines and values for the parameters that a rule of `partition` picks."""
    lines, values = [], dict(equations.values)
    for line in equations.lines:
        if isinstance(line, Group) and line.rule == rule:
            inside, known = flat(line, rule)
            lines += inside
            values |= known
        elif not isinstance(line, Group):
            lines.append(line)
    return lines, values


def evaluated(equations, θ, gradients, rule=None, mask=None):
    """All that has a name, after every step, in float64 from the very trees that are printed."""
    lines, values = flat(equations, rule)
    known = FUNCTIONS | {name: remade(value) for name, value in values.items()}
    if mask is not None:
        known["mask"] = mask
    memory = {line.name: np.zeros_like(θ) for line in lines} | {"θ": θ}
    for t, g in enumerate(gradients, 1):
        memory |= {"t": t, "g": g}
        for name, tree in lines:
            code = compile(ast.fix_missing_locations(ast.Expression(tree)), "equations", "eval")
            memory[name] = eval(code, known | memory)
        yield dict(memory)
