"""Variational inference with NumPyro, which takes Optax's optimizers as its own."""

import jax
import numpy as np
import optax
import pytest
from curves import check_curves

import adamw_jax as aj

pytest.importorskip("numpyro", reason="needs the extra clients")
import numpyro
import numpyro.distributions as dist
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoNormal
from numpyro.optim import optax_to_numpyro

SLOPES = np.float32([1.0, -2.0, 0.5])
X = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
Y = X @ SLOPES + np.random.default_rng(1).normal(scale=0.1, size=50).astype(np.float32)


def regression(x, y):
    slopes = numpyro.sample("slopes", dist.Normal(0, 1).expand([3]).to_event(1))
    numpyro.sample("y", dist.Normal(x @ slopes, 0.1), obs=y)


STEPS = 500
FALLING = optax.cosine_decay_schedule(0.1, STEPS)
OPTIMIZERS = {
    "adam": lambda lib: lib.adam(FALLING),
    "adamw": lambda lib: lib.adamw(FALLING, weight_decay=0.01),
}


def fit(tx):
    inference = SVI(regression, AutoNormal(regression), optax_to_numpyro(tx), Trace_ELBO())
    return inference.run(jax.random.key(0), STEPS, X, Y, progress_bar=False)


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_the_posterior_is_found_as_with_optax(make):
    ours, peer = fit(make(aj)), fit(make(optax))
    check_curves(ours.losses, peer.losses)
    np.testing.assert_allclose(ours.params["slopes_auto_loc"], SLOPES, atol=0.1)
