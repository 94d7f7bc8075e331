"""What the tests of laws draw their examples from, and what runs them."""

import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

SIZE, STEPS = 3, 4
numbers = st.floats(-1e3, 1e3, width=32).filter(lambda x: x == 0 or abs(x) > 1e-3)
nonzero = numbers.filter(bool)
rates = st.sampled_from([0.0, 0.3, 0.5, 0.9, 0.99, 0.999, 0.99999]) | st.floats(0, 0.999)
amounts = st.floats(1e-4, 1.0)
THETA = jnp.float32([1.0, -20.0, 300.0])


def vectors(of=numbers):
    return st.lists(of, min_size=SIZE, max_size=SIZE).map(np.float32)


def runs(of=numbers, steps=STEPS):
    """Gradients of several steps."""
    return st.lists(vectors(of), min_size=steps, max_size=steps)


def outputs(tx, gradients, params=THETA):
    """The updates of a run along given gradients, with the parameters held still."""
    state = tx.init(params)
    updates = []
    for g in gradients:
        update, state = tx.update(g, state, params)
        updates.append(update)
    return updates
