"""Wrong answers to the exercises of the course, and words that their verdicts must hold."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np


def average(body):
    """A step function made from `(b, s, g) -> (new state, update)`."""
    return lambda b: lambda s, g: body(b, s, g)


def both(x):
    return x, x


def no_return_of_step(b1):
    def step(m, g):
        return b1 * m + (1 - b1) * g, b1 * m + (1 - b1) * g


def keeps_it_elsewhere(b1):
    memory = [0.0]

    def step(m, g):
        memory[0] = b1 * memory[0] + (1 - b1) * g
        return memory[0], memory[0]

    return step


def branches(b1):
    def step(m, g):
        m = b1 * m + (1 - b1) * g
        return (m, m) if np.sum(m) > -100 else (0.0, 0.0)

    return step


def misspelt(b1):
    def step(m, g):
        m = beta * m + (1 - b1) * g  # noqa: F821
        return m, m

    return step


def loops(order=lambda ms: ms, feed=lambda u, source: u, keep=lambda new, old: new):
    """A chain of machines with one thing changed."""

    def chain(*machines):
        def step(states, source, θ):
            u, new = source, []
            for (_, step), state in order(list(zip(machines, states, strict=True))):
                after, u = step(state, feed(u, source), θ)
                new.append(keep(after, state))
            return tuple(order(new)), u

        return lambda θ: tuple(init(θ) for init, _ in machines), step

    return chain


def one_after_another(*machines, merge):
    (first_init, first), *others = machines

    def step(states, u, θ):
        state, u = first(states[0], u, θ)
        new, outs = [state], [u]
        for (_, step), state in zip(others, states[1:], strict=True):
            state, u = step(state, u, θ)
            new, outs = [*new, state], [*outs, u]
        return tuple(new), merge(*outs)

    return lambda θ: (first_init(θ), *(init(θ) for init, _ in others)), step


def side_by_side(merged=lambda outs: outs, kept=lambda new, old: new):
    def parallel(*machines, merge):
        def step(states, u, θ):
            pairs = [step(s, u, θ) for (_, step), s in zip(machines, states, strict=True)]
            new = tuple(s for s, _ in pairs)
            return kept(new, states), merge(*merged([u for _, u in pairs]))

        return lambda θ: tuple(init(θ) for init, _ in machines), step

    return parallel


def adam(
    square_of=lambda m, g: g,
    weights=lambda b, t: 1 - b**t,
    ratio=lambda m, v, eps: m / (jnp.sqrt(v) + eps),
    gradient=lambda g, θ, λ: g,
    out=lambda r, θ, α, λ: -α * r,
):
    def make(α, b1, b2, eps, λ=0.0):
        def step(state, g, θ):
            m, v, t = state
            g = gradient(g, θ, λ)
            m, t = b1 * m + (1 - b1) * g, t + 1
            v = b2 * v + (1 - b2) * square_of(m, g) ** 2
            r = ratio(m / weights(b1, t), v / weights(b2, t), eps)
            return (m, v, t), out(r, θ, α, λ)

        return lambda θ: (0.0, 0.0, 0), step  # not like θ, which only vectors show

    return make


def runs(gradient=lambda g, θ, start: g(θ), carried=lambda new, old: new, sign=1, tail=False):
    """A run in a loop."""

    def descend(machine, g, θ, steps):
        (init, step), start, path = machine, θ, [θ]
        state = init(θ)
        for _ in range(steps):
            new, update = step(state, gradient(g, θ, start), θ)
            state, θ = carried(new, state), θ + sign * update
            path.append(θ)
        return jnp.array(path[1:] if tail else path[:-1])

    return descend


def machine(function):
    return lambda λ: (lambda θ: (), lambda state, u, θ: (state, function(u, θ, λ)))


def in_place(b1):
    def step(m, g):
        m *= b1
        m += (1 - b1) * g
        return m, m

    return step


def lost_states(*machines):
    def step(states, u, θ):
        for (_, step), state in zip(machines, states, strict=False):
            _, u = step(state, u, θ)
        return states, u

    return lambda θ: (), step


def merges_a_list(*machines, merge):
    return side_by_side()(*machines, merge=lambda *outs: merge(outs))


def cosine(rate):
    """A schedule made from `(first, steps, step) -> rate`."""
    return lambda first, steps: lambda step: rate(first, steps, step)


def after_the_scaling(α, b1, b2, eps, λ):
    """AdamW as chain(adam, l2)."""
    init, step = adam()(α, b1, b2, eps)

    def decayed(state, u, θ):
        state, u = step(state, u, θ)
        return state, u + λ * θ

    return init, decayed


WRONG = [
    ("gradient_step", lambda θ, g, α: None, "returned None"),
    ("gradient_step", lambda θ, g, α: θ + g * α, "yours climbs"),
    ("gradient_step", lambda θ, g, α: θ - g, "the step is α g"),
    ("gradient_step", lambda θ, g, α: -α * g, "still to be added to θ"),
    ("gradient_step", lambda θ, g: θ - 0.1 * g, "raised TypeError"),
    ("momentum", no_return_of_step, "momentum(0.9) returned None"),
    ("momentum", lambda m, g: (m, g), "missing 1 required positional argument"),
    ("momentum", average(lambda b, m, g: 0.9 * m + 0.1 * g), "must return a pair"),
    (
        "momentum",
        average(lambda b, m, g: both(0.9 * m + 0.1 * g)),
        "momentum(0.5) goes wrong at step 1",
    ),
    ("momentum", average(lambda b, m, g: both(b * m + g)), "multiply it by 1 − b1"),
    ("momentum", average(lambda b, m, g: both((1 - b) * m + b * g)), "have changed places"),
    ("momentum", average(lambda b, m, g: (m, b * m + (1 - b) * g)), "the old m is returned as the"),
    ("momentum", average(lambda b, m, g: (b * m + (1 - b) * g, g)), "the update is the gradient"),
    ("momentum", average(lambda b, m, g: (b * m + (1 - b) * g, m)), "from before this gradient"),
    ("momentum", average(lambda b, m, g: both(m + (1 - b) * g)), "does not fade"),
    ("momentum", keeps_it_elsewhere, "is not pure: called twice"),
    ("momentum", branches, "jax.lax.scan(momentum(0.9), …) raised TracerBoolConversionError"),
    ("momentum", misspelt, "name 'beta' is not defined in the line: m = beta * m + (1 - b1) * g"),
    ("second_moment", average(lambda b, v, g: both(b * v + g**2)), "a sum and not an average"),
    ("second_moment", average(lambda b, v, g: both(b * v + (1 - b) * g)), "is not squared"),
    ("second_moment", average(lambda b, v, g: both((b * v + (1 - b) * g) ** 2)), "goes wrong"),
    (
        "second_moment",
        average(lambda b, v, g: (b * v + (1 - b) * g, (b * v + (1 - b) * g) ** 2)),
        "the square of an average",
    ),
    (
        "second_moment",
        average(lambda b, v, g: (b * v + (1 - b) * g**2, jnp.sqrt(b * v + (1 - b) * g**2))),
        "root is taken here already",
    ),
    (
        "second_moment",
        average(lambda b, v, g: (v, b * v + (1 - b) * g * g)),
        "the old v is returned",
    ),
    ("bias_correction", average(lambda b, t, x: (t + 1, x / (1 - b**t))), "Count first"),
    ("bias_correction", average(lambda b, t, x: (t, x / (1 - b ** (t + 1)))), "come back as t + 1"),
    ("bias_correction", average(lambda b, t, x: (t + 1, x / (1 - b))), "the divisor is 1 − bᵗ"),
    (
        "bias_correction",
        average(lambda b, t, x: (t + 1, x * (1 - b ** (t + 1)))),
        "it should divide",
    ),
    ("bias_correction", average(lambda b, t, x: (t + 1, x / b ** (t + 1))), "this divides by bᵗ"),
    (
        "bias_correction",
        average(lambda b, t, x: (t + 1, x / (1 - b * (t + 1)))),
        "t is an exponent",
    ),
    ("bias_correction", average(lambda b, t, x: (x / (1 - b ** (t + 1)), t + 1)), "Optax's order"),
    ("second_moment", average(lambda b, v, g: b * v + (1 - b) * g**2), "and it returned 0.1."),
    ("ratio", lambda eps: lambda m, v: m / jnp.sqrt(v + eps), "eps is inside the root"),
    ("ratio", lambda eps: lambda m, v: m / np.sqrt(v), "eps is missing"),
    ("ratio", lambda eps: lambda m, v: m / (v + eps), "its root has the unit of a gradient"),
    ("ratio", lambda m, v: m / v**0.5, "ratio(eps) returns merge(m, v)"),
    ("chain", loops(order=lambda ms: ms[::-1]), "in the opposite order"),
    ("chain", loops(feed=lambda u, source: source), "the update of the one before it"),
    ("chain", loops(keep=lambda new, old: old), "the new states are lost"),
    ("chain", lambda *machines: machines[-1], "chain() raised IndexError"),
    ("chain", lambda *machines: list(machines), "must return a pair"),
    ("parallel", one_after_another, "that is a chain"),
    ("parallel", side_by_side(merged=lambda outs: outs[::-1]), "in the opposite order"),
    ("parallel", side_by_side(kept=lambda new, old: old), "the new states are lost"),
    ("adam", adam(square_of=lambda m, g: m), "v averages the squares of m"),
    ("adam", adam(weights=lambda b, t: 1), "not corrected for their start"),
    ("adam", adam(weights=lambda b, t: 1 - b ** (t - 1)), "the correction is late"),
    ("adam", adam(ratio=lambda m, v, eps: m / jnp.sqrt(v + eps)), "eps is inside the root"),
    ("adam", adam(out=lambda r, θ, α, λ: α * r), "it should point downhill"),
    ("adam", adam(out=lambda r, θ, α, λ: -r), "the learning rate α is missing"),
    ("l2", machine(lambda u, θ, λ: u), "lacks the weights"),
    ("l2", machine(lambda u, θ, λ: u - λ * θ), "is subtracted here already"),
    ("l2", machine(lambda u, θ, λ: u + 0.5 * λ * θ * θ), "the penalty"),
    ("l2", machine(lambda u, θ, λ: λ * θ), "the gradient is replaced"),
    (
        "l2",
        lambda λ: (lambda θ: None, lambda state, u, θ: (u + λ * θ, state)),
        "it is None. The pair is (new state, update), in this order.",
    ),
    ("adam", adam(), "start it with jnp.zeros_like(θ)"),
    ("adamw", adam(gradient=lambda g, θ, λ: g + λ * θ), "this is Adam with L2"),
    ("adamw", adam(), "nothing decays"),
    ("adamw", adam(out=lambda r, θ, α, λ: -α * r - λ * θ), "taken whole at every step"),
    ("adamw", adam(out=lambda r, θ, α, λ: -α * (r - λ * θ)), "the weights grow"),
    (
        "adamw",
        adam(out=lambda r, θ, α, λ: -α * (r + λ * θ), square_of=lambda m, g: m),
        "v averages the squares of m",
    ),
    ("descend", runs(tail=True), "it should begin at the start"),
    ("descend", runs(sign=-1), "points downhill already"),
    ("descend", runs(gradient=lambda g, θ, start: g(start)), "take it where θ is now"),
    ("descend", runs(carried=lambda new, old: old), "the machine forgets"),
    ("descend", lambda machine, g, θ, steps: θ, "must return an array of 4 values"),
    (
        "descend",
        lambda *run: np.array([float(x) for x in runs()(*run)]),
        "jax.vmap over θ of descend(momentum, …) raised",
    ),
    ("gradient_step", lambda θ, g, α: (θ - α * g, ()), "number or an array, and it returned (0.9"),
    ("gradient_step", 0.9, "must be a function, and it is 0.9: name it without calling it"),
    ("gradient_step", lambda g, θ, α: θ - α * g, "have changed places"),
    ("momentum", in_place, "m *= b1 changes the old m"),
    ("momentum", average(lambda b, m, g: [m, g]), "the tuple (new state, update), and it ret"),
    ("momentum", average(lambda b, m, g: both(float(m) * b + (1 - b) * g)), "also work on vectors"),
    ("momentum", average(lambda b, m, g: both(b * (m + g))), "b1 multiplies the gradient, too"),
    (
        "second_moment",
        average(lambda b, v, g: both(b * v + (1 - b) * np.dot(g, g))),
        "v of its own",
    ),
    ("bias_correction", average(lambda b, t, x: (t + 1, x / 1 - b ** (t + 1))), "in parentheses"),
    ("bias_correction", average(lambda b, t, x: (t + 1, x)), "x comes back as it is"),
    (
        "ratio",
        lambda eps: lambda m, v: m / (math.sqrt(v) + eps),
        "jnp takes the place of",
    ),
    (
        "ratio",
        lambda eps: lambda m, v: m / (np.sqrt(v) + eps),
        "jax.jit(ratio(eps=1e-8))",
    ),
    ("ratio", lambda eps: lambda v, m: m / (v**0.5 + eps), "m and v have changed places"),
    ("chain", lost_states, "init must make a state for each"),
    ("parallel", merges_a_list, "missing 1 required positional argument: 'b'"),
    ("adam", adam(weights=lambda b, t: 1 - b**t if b == 0.9 else 1), "only m is corrected"),
    ("adam", adam(out=lambda r, θ, α, λ: θ - α * r), "this is the new weight"),
    ("l2", machine(lambda u, θ, λ: u + λ * θ * u), "multiplied by the gradient"),
    ("l2", lambda λ: (lambda θ: θ, lambda s, u, θ: (s, u + λ * s)), "that which init saw"),
    ("adamw", after_the_scaling, "stands behind the stage that multiplies by −α"),
    ("adamw", adam(out=lambda r, θ, α, λ: -α * (r + α * λ * θ)), "multiplied by α twice"),
    ("descend", lambda *run: list(runs()(*run)), "4 values of θ, and it returned [3, 1.5"),
    ("descend", lambda *run: (run[2], runs()(*run)), "it returned (3, [3, 1.5, 0.75, 0.375])"),
    (
        "descend",
        lambda machine, g, θ, steps: jax.lax.scan(lambda θ, _: ((θ, 0), θ), θ, length=steps),
        "but they differ: The input carry",
    ),
    ("cosine", cosine(lambda first, n, t: first * (1 + jnp.cos(np.pi * min(t, n) / n))), "1 to −1"),
    (
        "cosine",
        cosine(lambda first, n, t: first * (0.5 + 0.5 * math.cos(math.pi * min(t, n) / n))),
        "jnp.cos in the place of math.cos",
    ),
    (
        "cosine",
        cosine(lambda first, n, t: first * (0.5 + 0.5 * jnp.cos(jnp.pi * t / n))),
        "the rate rises again: it should stay at zero",
    ),
    ("cosine", lambda first, steps: first, "must return a function, and it returned 1."),
    ("p_value", lambda d: float(np.mean(d) > 0), "goes wrong"),
    ("p_value", lambda d: (0.5, d), "must return a number or an array"),
    (
        "p_value",
        lambda d: np.mean(
            [np.dot(s, d) >= np.sum(d) for s in itertools.product([1, -1], repeat=len(d))]
        ),
        "a mean as far below zero counts, too",
    ),
]
