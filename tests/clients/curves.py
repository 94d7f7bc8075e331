"""What every client is asked: to learn with our optimizers as it does with Optax's."""

import numpy as np
import optax

# A regression: y = sin(Σx).
X = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
Y = np.sin(X.sum(axis=1, keepdims=True))
STEPS = 30

FALLING = optax.cosine_decay_schedule(0.03, STEPS)
OPTIMIZERS = {
    "adamw with a schedule": lambda lib: lib.adamw(FALLING, weight_decay=0.1),
    "nadam": lambda lib: lib.nadam(0.02),
}


def check_curves(losses, expected):
    """That the losses of a run fall, as those of the same run with Optax's optimizer."""
    losses, expected = np.array(losses), np.array(expected)
    assert losses[-1] < 0.7 * losses[0]
    # Optax's first step is off by 7e-6 where b2 is 0.999, since it takes 1 - b2 in float32.
    np.testing.assert_allclose(losses, expected, atol=5e-6 * losses[0])
