import jax.numpy as jnp


def bias_correction(b):
    def step(t, x):
        t = t + 1
        return t, x / (1 - b**t)

    return step


def ratio(eps):
    return lambda m, v: m / (jnp.sqrt(v) + eps)
