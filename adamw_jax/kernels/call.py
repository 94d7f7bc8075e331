"""The compiled loop as a function of JAX arrays: one call for many leaves.

A foreign call has no batching, no derivative and no partitioning of its own. Here it has all three:
the lanes of `vmap` become a leading axis, which the loop knows; the derivative is that of
`formula`; and on several devices each calls the loop for its own part.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import ArrayMapping, SdyShardingRule, custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec

from adamw_jax import numerics
from adamw_jax.hyperparameters import Decay
from adamw_jax.kernels.library import TARGET
from adamw_jax.moments import square


class Coefficients(NamedTuple):
    """The numbers of a step of one leaf, in the order in which step.cc has them.

    Attributes:
      complement1, complement2: 1 − b1 and 1 − b2.
      correction1, correction2: 1 / (1 − bᵗ), or 1.
      eps, eps_root: of the ratio, outside and inside the root.
      gradient_scale, gradient_decay: s and d of `shape`, before the moments.
      scale, decay: s and d after them.
    """

    complement1: Any
    correction1: Any
    complement2: Any
    correction2: Any
    eps: Any
    eps_root: Any
    gradient_scale: Any
    gradient_decay: Any
    scale: Any
    decay: Any


class Leaf(NamedTuple):
    """A gradient with its parameter and its moments, each None where there is no such."""

    g: Any
    p: Any
    m: Any
    v: Any


class Moved(NamedTuple):
    """What a step makes of a leaf: the update or, if it is applied, the parameter; the moments."""

    out: Any
    m: Any
    v: Any


def formula(c: Coefficients, leaf: Leaf, is_applied: bool) -> Moved:
    """A step of one leaf. The loop in step.cc does the same, but for the rounding of FMA.

    Where nothing decays, a parameter that is infinite or NaN does not come into the sums.
    """
    dtype = jnp.result_type(*(numerics.working_dtype(x) for x in leaf if x is not None))
    g, p = (x if x is None else numerics.cast(x, dtype) for x in leaf[:2])
    m, v = (x if x is None else numerics.cast(x, numerics.working_dtype(x)) for x in leaf[2:])
    c = Coefficients(*(numerics.cast(x, dtype) for x in c))

    def decayed(x, by):
        # With `where(by == 0, 0, by * p)` the derivative by the decay would be lost.
        return x if p is None else x + by * jnp.where((by != 0) | jnp.isfinite(p), p, 0)

    g = decayed(c.gradient_scale * g, c.gradient_decay)
    direction = g
    if m is not None:
        m = numerics.average(Decay(c.complement1, None, None))(m, g)
        direction = m * c.correction1
    if v is not None:
        v = numerics.average(Decay(c.complement2, None, None))(v, square(g))
        root = jnp.sqrt(v * c.correction2.real + c.eps_root.real)
        direction = direction / numerics.cast(root + c.eps.real, dtype)
    out = decayed(c.scale * direction, c.decay)
    moved = Moved(p + out, m, v) if is_applied else Moved(out, m, v)
    kept = Moved(leaf.p if is_applied else leaf.g, leaf.m, leaf.v)
    return jax.tree.map(lambda new, old: numerics.cast(new, old.dtype), moved, kept)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def in_one_pass(is_applied: bool, coefficients: jax.Array, leaves: list[Leaf]) -> list[Moved]:
    """A step of many leaves by the loop.

    Args:
      is_applied: whether the step is added to the parameters.
      coefficients: [leaves, 10], a row of `Coefficients` for each leaf; float32, or float64 if the
        arrays are.
      leaves: their gradients, and all of them with or all without parameters and moments.
    """
    return _batched(is_applied)(coefficients, leaves)


@in_one_pass.defjvp
def _derivative(is_applied, primals, tangents):
    def by_formula(coefficients, leaves):
        rows = [Coefficients(*row) for row in coefficients]
        return [formula(*of, is_applied) for of in zip(rows, leaves, strict=True)]

    return in_one_pass(is_applied, *primals), jax.jvp(by_formula, primals, tangents)[1]


@functools.cache
def _batched(is_applied: bool) -> Any:
    """The loop as a function of arrays that may all have leading axes of lanes."""
    partitioned = custom_partitioning(functools.partial(_call, is_applied))
    partitioned.def_partition(
        functools.partial(_partition, is_applied), sharding_rule=_sharding_rule
    )

    @custom_vmap
    def call(coefficients, leaves):
        return partitioned(coefficients, leaves)

    @call.def_vmap
    def _lanes(lanes, is_batched, *operands):
        def spread(x, has_lanes):
            return x if has_lanes else jnp.broadcast_to(x, (lanes, *x.shape))

        moved = call(*jax.tree.map(spread, operands, tuple(is_batched)))
        return moved, jax.tree.map(lambda _: True, moved)

    return call


def _call(is_applied: bool, coefficients: jax.Array, leaves: list[Leaf]) -> list[Moved]:
    g, p, m, v = ([x for x in column if x is not None] for column in zip(*leaves, strict=True))
    operands = [coefficients, *g, *p, *m, *v]
    old = [*(p if is_applied else g), *m, *v]
    # Each result is written where its old value was, and an update where its gradient was.
    first, moments = 1 + (len(g) if is_applied else 0), 1 + len(g) + len(p)
    places = [*range(first, first + len(g)), *range(moments, len(operands))]
    results = iter(
        jax.ffi.ffi_call(
            TARGET,
            [jax.typeof(x) for x in old],
            input_output_aliases={place: i for i, place in enumerate(places)},
        )(
            *operands,
            has_params=bool(p),
            has_first=bool(m),
            has_second=bool(v),
            is_applied=is_applied,
        )
    )
    columns = ([next(results) if column else None for _ in g] for column in (g, m, v))
    return [Moved(*row) for row in zip(*columns, strict=True)]


def _sharding_rule(mesh, operands, results) -> SdyShardingRule:
    """Each axis of a leaf is sharded alike in all its arrays; the lanes in those of all leaves."""
    del mesh
    coefficients, *arrays = operands
    lanes = [f"l{i}" for i in range(len(coefficients.shape) - 2)]
    count = coefficients.shape[-2]

    def mappings(types):
        each = len(types) // count
        return tuple(
            ArrayMapping(*lanes, *(f"n{i // each}a{k}" for k in range(len(x.shape) - len(lanes))))
            for i, x in enumerate(types)
        )

    of_coefficients = ArrayMapping(*lanes, "rows", "columns")
    return SdyShardingRule(
        (of_coefficients, *mappings(arrays)),
        mappings(list(results)),
        need_replication_factors=("rows", "columns"),
    )


def _partition(is_applied, mesh, operands, results):
    """Each device calls the loop for its own part."""
    coefficients, leaves = operands
    lanes = len(coefficients.shape) - 2
    shardings = [moved.out.sharding for moved in results]
    spec = PartitionSpec(*shardings[0].spec[:lanes], None, None)
    like = lambda tree: [  # noqa: E731
        jax.tree.map(lambda _, s=sharding: s, leaf)
        for leaf, sharding in zip(tree, shardings, strict=True)
    ]
    arguments = NamedSharding(shardings[0].mesh, spec), like(leaves)
    return mesh, functools.partial(_call, is_applied), like(results), arguments
