import jax
import jax.numpy as jnp


def descend(machine, gradient, θ, steps):
    init, step = machine

    def move(carry, number):
        θ, state = carry
        state, update = step(state, gradient(θ), θ)
        return (θ + update, state), θ

    return jax.lax.scan(move, (θ, init(θ)), jnp.arange(steps))[1]
