import jax.numpy as jnp
from lesson02 import momentum
from lesson03 import second_moment
from lesson04 import bias_correction, ratio


def machine(step, start=jnp.zeros_like):
    return start, lambda state, u, θ: step(state, u)


def chain(*machines):
    def init(θ):
        return tuple(init(θ) for init, _ in machines)

    def step(states, u, θ):
        new = []
        for (_, step), state in zip(machines, states):
            state, u = step(state, u, θ)
            new.append(state)
        return tuple(new), u

    return init, step


def parallel(*machines, merge):
    def init(θ):
        return tuple(init(θ) for init, _ in machines)

    def step(states, u, θ):
        results = [step(state, u, θ) for (_, step), state in zip(machines, states)]
        new, updates = zip(*results)
        return new, merge(*updates)

    return init, step


def corrected(average, b):
    return chain(machine(average(b)), machine(bias_correction(b), start=lambda θ: 0))


def direction(b1, b2, eps):
    first, second = corrected(momentum, b1), corrected(second_moment, b2)
    return parallel(first, second, merge=ratio(eps))


def downhill(α):
    return machine(lambda state, u: (state, -α * u), start=lambda θ: ())


def adam(α, b1, b2, eps):
    return chain(direction(b1, b2, eps), downhill(α))
