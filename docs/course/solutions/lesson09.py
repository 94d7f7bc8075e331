import jax.numpy as jnp


def cosine(first, steps):
    def schedule(step):
        return first * (0.5 + 0.5 * jnp.cos(jnp.pi * jnp.minimum(step, steps) / steps))

    return schedule
