"""The run that trains a Flax module on minibatches, from a model, a loss and an optimizer.

    def loss(model, batch):
        logits = model(batch["image"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()

    def optimizer(h):
        return adamw(h["learning_rate"], weight_decay=h["weight_decay"])

    run = training(lambda rngs: MLP(rngs=rngs), loss, optimizer, epochs=20, batch_size=128)
    results = sweep(run, grid, {"train": {"image": images, "label": labels}})

This is how training usually goes. For any other, write the two functions of a `Run` yourself.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from adamw_jax.kernels import Fused
from adamw_jax.sweep.examples import count, minibatches, taken
from adamw_jax.sweep.networks import network
from adamw_jax.sweep.run import Hyperparameters, Run

Metrics = Mapping[str, Any]


class TrainingState(NamedTuple):
    """A training between two advances.

    Attributes:
      settings: what the optimizer is built from, scalars by name.
      key: the random key for the rest of the run.
      params: the parameters of the module.
      rest: its other arrays.
      opt_state: the state of the optimizer.
      draw_key: the key of what the run draws from the data; None if nothing.
      least: the least value of the metric `best` so far, and the advances since; None without.
    """

    settings: Hyperparameters
    key: jax.Array
    params: Any
    rest: Any
    opt_state: optax.OptState
    draw_key: jax.Array | None
    least: tuple[jax.Array, jax.Array] | None


def training(
    model: Any,
    loss: Callable[[Any, Any], jax.Array],
    optimizer: Callable[[Hyperparameters], optax.GradientTransformation],
    *,
    epochs: int,
    batch_size: int | None,
    evaluate: Callable[[Any, Any], Metrics] | None = None,
    evaluations: int | None = None,
    eval_params: Callable[[optax.OptState, Any], Any] | None = None,
    best: str | None = None,
    draw: Callable[[jax.Array, Any], Any] | None = None,
) -> Run:
    """The run that trains a Flax module on minibatches, which are shuffled anew for every epoch.

    The data of the sweep is a mapping; `data["train"]` is a pytree of arrays whose first axis is
    that of the examples. An epoch is ⌊n / batch_size⌋ steps; the examples left over differ from
    epoch to epoch. The metrics are `train_loss`, the mean loss of the last epoch's batches, each
    before its step, and those of `evaluate`.

    NNX modules are in training mode in the loss, and in evaluation mode in `evaluate`. Linen
    modules have no mode: pass `train=True` or the like to theirs in the loss. Batch statistics
    and the random numbers of dropout are taken care of in both.

    Args:
      model: a Linen module, or a function that makes an NNX module from `rngs=`.
      loss: `(model, batch) -> float scalar`, the mean over a batch.
      optimizer: builds the optimizer from the run's settings, which are traced scalars; a step of
        `adamw_jax.kernels.fused` is done in one pass.
      epochs: passes over the examples, ≥ 1.
      batch_size: examples in a step, from 1 to n; None for all of them, in their order.
      evaluate: `(model, data) -> metrics`, real arrays by name.
      evaluations: how often the model is evaluated, a divisor of `epochs`; by default after
        every epoch. An advance is the epochs between two evaluations.
      eval_params: `(opt_state, params) -> params`: what is evaluated in the place of the
        parameters, such as `schedule_free_eval_params`.
      best: a metric, the less the better, such as "validation_loss". Another metric,
        `since_best`, then counts the advances since it was least, so that runs can stop early:
        `sweep(..., until=lambda metrics: metrics["since_best"] >= 5)`.
      draw: `(key, data) -> data`: makes a run's own data from that of all, for example with
        `Rows` where it selects examples. It is called in every advance, with the same key.

    Returns:
      The run; its state is a `TrainingState`.

    Raises:
      ValueError: `evaluations` does not divide `epochs`; or, in the sweep, `batch_size` is more
        than the examples, or their arrays differ in the first axis.
      TypeError: the model is of another kind.
    """
    evaluations = epochs if evaluations is None else evaluations
    if min(epochs, evaluations) < 1:
        raise ValueError(f"epochs and evaluations are at least 1; got {epochs} and {evaluations}")
    between, left = divmod(epochs, evaluations)
    if left:
        raise ValueError(f"{evaluations} evaluations do not divide {epochs} epochs")
    net = network(model)

    def own(data: Any, key: Any) -> Any:
        data = data if draw is None else draw(key, data)
        if not isinstance(data, Mapping) or "train" not in data:
            raise ValueError(f'the data of a training has "train" among its names; got {data!r}')
        return data

    def start(settings: Hyperparameters, key: jax.Array, data: Any) -> TrainingState:
        key, draw_key = (key, None) if draw is None else jax.random.split(key)
        key, init_key = jax.random.split(key)
        batch = taken(own(data, draw_key)["train"], slice(batch_size))
        params, rest = net.init(init_key, lambda module: loss(module, batch))
        opt_state = optimizer(settings).init(params)
        least = None if best is None else (jnp.float32(jnp.inf), jnp.int32(0))
        return TrainingState(settings, key, params, rest, opt_state, draw_key, least)

    def epoch(state: TrainingState, examples: Any) -> tuple[TrainingState, jax.Array]:
        tx = optimizer(state.settings)

        def step(carry, given):
            params, rest, opt_state = carry
            rows, key = given
            batch = taken(examples, slice(None) if rows is None else rows)

            def loss_of(params):
                return net.call(lambda module: loss(module, batch), params, rest, key, True)

            (value, rest), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
            if isinstance(tx, Fused):
                params, opt_state = tx.step(grads, opt_state, params)
            else:
                updates, opt_state = tx.update(grads, opt_state, params)
                params = optax.apply_updates(params, updates)
            return (params, rest, opt_state), value

        key, order_key, noise_key = jax.random.split(state.key, 3)
        rows = None if batch_size is None else minibatches(order_key, count(examples), batch_size)
        keys = jax.random.split(noise_key, 1 if rows is None else len(rows))
        carry = state.params, state.rest, state.opt_state
        (params, rest, opt_state), losses = jax.lax.scan(step, carry, (rows, keys))
        state = state._replace(key=key, params=params, rest=rest, opt_state=opt_state)
        return state, losses.mean()

    def advance(state: TrainingState, data: Any) -> tuple[TrainingState, Metrics]:
        data = own(data, state.draw_key)
        state, losses = jax.lax.scan(
            lambda state, _: epoch(state, data["train"]), state, length=between
        )
        metrics = {"train_loss": losses[-1]}
        if (score := evaluate) is not None:
            use = lambda module: score(module, data)  # noqa: E731
            params = (
                state.params if eval_params is None else eval_params(state.opt_state, state.params)
            )
            measured = net.call(use, params, state.rest, state.key, False)[0]
            if not isinstance(measured, Mapping):
                raise ValueError(f"evaluate returns metrics by name; it returned {measured!r}")
            metrics |= measured
        if best is not None and state.least is not None:
            least, since = state.least
            now = jnp.asarray(_named(metrics, best), jnp.float32)
            since = jnp.where(now < least, 0, since + 1)
            state = state._replace(least=(jnp.fmin(now, least), since))
            metrics["since_best"] = since
        return state, metrics

    return Run(start, advance, evaluations)


def _named(metrics: Metrics, name: str) -> Any:
    if name not in metrics:
        raise ValueError(f"best = {name!r} is none of the metrics {', '.join(metrics)}")
    return metrics[name]
