import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from scipy import stats

import adamw_jax
from adamw_jax import sweep
from adamw_jax.sweep.examples import minibatches, permutation

N, BATCH, RATE = 192, 32, 1e-2


@pytest.fixture(scope="module")
def data():
    x = jax.random.normal(jax.random.key(0), (N + 64, 4))
    y = (x[:, 0] * x[:, 1] > 0).astype(int)
    return {"train": {"x": x[:N], "y": y[:N]}, "test": {"x": x[N:], "y": y[N:]}}


class Nnx(nnx.Module):
    """With everything that a module may keep: parameters, statistics, random numbers."""

    def __init__(self, *, rngs):
        self.first, self.last = nnx.Linear(4, 16, rngs=rngs), nnx.Linear(16, 2, rngs=rngs)
        self.norm, self.dropout = nnx.BatchNorm(16, rngs=rngs), nnx.Dropout(0.2, rngs=rngs)

    def __call__(self, x):
        return self.last(self.dropout(nnx.relu(self.norm(self.first(x)))))


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x, train=False):
        x = linen.BatchNorm(use_running_average=not train)(linen.Dense(16)(x))
        return linen.Dense(2)(linen.Dropout(0.2, deterministic=not train)(linen.relu(x)))


def cross_entropy(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def nnx_loss(model, batch):
    return cross_entropy(model(batch["x"]), batch["y"])


def linen_loss(model, batch):
    return cross_entropy(model(batch["x"], train=True), batch["y"])


def scored(model, data):
    logits = model(data["test"]["x"])
    right = (logits.argmax(-1) == data["test"]["y"]).mean()
    return {"test_loss": cross_entropy(logits, data["test"]["y"]), "test_accuracy": right}


def adam(h):
    return adamw_jax.adam(h["learning_rate"])


def trained(run, data, key, advances=1):
    state = jax.jit(run.start)({"learning_rate": jnp.float32(RATE)}, key, data)
    for _ in range(advances):
        state, metrics = jax.jit(run.advance)(state, data)
    return state, metrics


def test_an_epoch_of_an_nnx_module_is_the_loop_that_one_would_write(data):
    run = sweep.training(Nnx, nnx_loss, adam, epochs=1, batch_size=BATCH, evaluate=scored)
    state, metrics = trained(run, data, key := jax.random.key(3))

    key, init_key = jax.random.split(key)
    model = nnx.jit(lambda key: Nnx(rngs=nnx.Rngs(key)))(init_key)
    optimizer = nnx.Optimizer(model, adamw_jax.adam(RATE), wrt=nnx.Param)
    step = nnx.jit(lambda m, opt, batch: opt.update(m, nnx.grad(nnx_loss)(m, batch)))
    for rows in minibatches(jax.random.split(key)[1], N, BATCH):
        step(model, optimizer, jax.tree.map(lambda x, rows=rows: x[rows], data["train"]))
    _, params, rest = nnx.split(model, nnx.Param, ...)
    chex.assert_trees_all_close(state.params, nnx.as_pure(params), rtol=1e-4, atol=1e-6)
    chex.assert_trees_all_close(state.rest["norm"], nnx.as_pure(rest)["norm"], rtol=1e-4)
    assert state.rest["dropout"]["rngs"]["count"] == N // BATCH
    model.eval()
    chex.assert_trees_all_close(
        metrics, {**scored(model, data), "train_loss": metrics["train_loss"]}, rtol=1e-4
    )


def test_an_epoch_of_a_linen_module_is_the_loop_that_one_would_write(data):
    run = sweep.training(Linen(), linen_loss, adam, epochs=1, batch_size=BATCH, evaluate=scored)
    state, metrics = trained(run, data, key := jax.random.key(3))

    key, init_key = jax.random.split(key)
    variables = jax.jit(Linen().init)(init_key, data["train"]["x"][:BATCH])
    tx = adamw_jax.adam(RATE)
    params, rest = variables["params"], {"batch_stats": variables["batch_stats"]}
    opt_state = tx.init(params)
    _, order_key, noise_key = jax.random.split(key, 3)

    @jax.jit
    def step(params, rest, opt_state, batch, key):
        def loss(params):
            logits, kept = Linen().apply(
                {"params": params, **rest}, batch["x"], train=True, rngs={"dropout": key},
                mutable=["batch_stats"],
            )  # fmt: skip
            return cross_entropy(logits, batch["y"]), kept

        (value, rest), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), rest, opt_state, value

    batches, losses = minibatches(order_key, N, BATCH), []
    for rows, key in zip(batches, jax.random.split(noise_key, len(batches)), strict=True):
        batch = jax.tree.map(lambda x, rows=rows: x[rows], data["train"])
        params, rest, opt_state, value = step(params, rest, opt_state, batch, key)
        losses.append(value)
    chex.assert_trees_all_close((state.params, state.rest), (params, rest), rtol=1e-4, atol=1e-6)
    bound = Linen().bind({"params": params, **rest})
    expected = {**scored(bound, data), "train_loss": np.mean(losses)}
    chex.assert_trees_all_close(metrics, expected, rtol=1e-4)


GRID = sweep.product(learning_rate=[1e-3, RATE], seed=range(2))


def test_a_sweep_stops_early_reads_its_best_and_replays_it_bit_for_bit(data):
    training = {"epochs": 40, "batch_size": BATCH, "evaluate": scored, "best": "test_loss"}
    run = sweep.training(Nnx, nnx_loss, adam, **training)
    results = sweep.sweep(
        run, GRID, data, progress=False, until=lambda metrics: metrics["since_best"] >= 3
    )
    assert {r.status for r in results} == {"finished", "stopped"}
    for r in results:
        losses = r.metrics["test_loss"]
        since = [i - losses[: i + 1].argmin() for i in range(len(losses))]
        np.testing.assert_array_equal(r.metrics["since_best"], since)
        best = r.at_best("test_loss")
        assert best["test_loss"] == losses.min() and best["advance"] == losses.argmin() + 1
        assert r.at_best("test_accuracy", highest=True)["test_accuracy"] == max(
            r.metrics["test_accuracy"]
        )

    r = results[2]
    advances = r.at_best("test_loss")["advance"]
    state = sweep.replay(run, GRID, data, r, advances=advances)
    again, _ = run.advance(sweep.replay(run, GRID, data, r, advances=advances - 1), data)
    chex.assert_trees_all_close(state.params, again.params, rtol=1e-4, atol=1e-6)
    model = nnx.eval_shape(lambda: Nnx(rngs=nnx.Rngs(0)))
    nnx.update(model, state.params, state.rest)
    model.eval()
    assert scored(model, data)["test_loss"] == pytest.approx(losses_of(r)[advances - 1], rel=1e-5)
    end = sweep.replay(run, GRID, data, r)
    assert end.least[0] == min(losses_of(r)) and end.least[1] == r.final("since_best")


def losses_of(result):
    return result.metrics["test_loss"]


def test_each_run_may_draw_its_own_rows_which_are_not_copied(data):
    def draw(key, data):
        order = permutation(key, N)
        rows = {name: sweep.Rows(x, order[:64]) for name, x in data["train"].items()}
        assert rows["x"].shape == (64, 4)
        return {"train": rows, "test": data["test"]}

    arguments = {"epochs": 2, "batch_size": 16, "evaluate": scored}
    run = sweep.training(Linen(), linen_loss, adam, draw=draw, **arguments)
    state, metrics = trained(run, data, key := jax.random.key(5))
    mine = permutation(state.draw_key, N)[:64]
    selected = {"train": {name: x[mine] for name, x in data["train"].items()}, "test": data["test"]}
    alone = sweep.training(Linen(), linen_loss, adam, **arguments)
    expected_state, expected = trained(alone, selected, jax.random.split(key)[0])
    chex.assert_trees_all_close(metrics, expected, rtol=1e-4)
    chex.assert_trees_all_close(state.params, expected_state.params, rtol=1e-4, atol=1e-6)
    other, _ = trained(run, data, jax.random.key(6))
    assert set(np.asarray(permutation(other.draw_key, N)[:64])) != set(np.asarray(mine))


def test_without_a_batch_size_a_step_sees_all_examples(data):
    class Linear(nnx.Module):
        def __init__(self, *, rngs):
            self.w = nnx.Param(jnp.zeros(4))

    def loss(model, batch):
        return jnp.mean((batch["x"] @ model.w[...] - batch["y"]) ** 2)

    def descent(h):
        return adamw_jax.gd(h["learning_rate"])

    run = sweep.training(Linear, loss, descent, epochs=3, batch_size=None, evaluations=1)
    assert run.length == 1
    state, metrics = trained(run, data, jax.random.key(0))
    x, y = (np.asarray(data["train"][name], np.float64) for name in "xy")
    w = np.zeros(4)
    for _ in range(3):
        before = np.mean((x @ w - y) ** 2)
        w -= RATE * 2 * x.T @ (x @ w - y) / N
    np.testing.assert_allclose(state.params["w"], w, rtol=1e-5)
    np.testing.assert_allclose(metrics["train_loss"], before, rtol=1e-5)


def test_what_is_evaluated_may_be_an_average_that_the_optimizer_keeps(data):
    def averaging(h):
        return adamw_jax.schedule_free_adamw(h["learning_rate"])

    options = {"epochs": 2, "batch_size": BATCH, "evaluate": scored, "evaluations": 1}
    average = adamw_jax.schedule_free_eval_params
    run = sweep.training(Linen(), linen_loss, averaging, **options, eval_params=average)
    state, metrics = trained(run, data, jax.random.key(0))
    averaged = {"params": average(state.opt_state, state.params), **state.rest}
    test = data["test"]
    loss = cross_entropy(Linen().apply(averaged, test["x"]), test["y"])
    np.testing.assert_allclose(metrics["test_loss"], loss, rtol=1e-5)
    plain, there = trained(
        sweep.training(Linen(), linen_loss, averaging, **options), data, jax.random.key(0)
    )
    chex.assert_trees_all_equal(plain.params, state.params)  # training goes on from its own
    assert abs(there["test_loss"] - metrics["test_loss"]) > 1e-4


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"model": Nnx(rngs=nnx.Rngs(0))}, TypeError, "makes an NNX module from rngs=.*got a Nnx"),
        ({"model": 3}, TypeError, "model is a Linen module, or a function"),
        ({"model": lambda rngs: 3}, TypeError, "this function makes something else"),
        ({"evaluations": 3}, ValueError, "3 evaluations do not divide 10 epochs"),
        ({"epochs": 0}, ValueError, "epochs and evaluations are at least 1"),
        ({"batch_size": N + 1}, ValueError, "batch_size = 193 is more than the 192 examples"),
        ({"best": "loss"}, ValueError, "best = 'loss' is none of the metrics train_loss, test_"),
        ({"evaluate": lambda m, d: jnp.ones(())}, ValueError, "evaluate returns metrics by name"),
        (
            {"draw": lambda key, data: {"train": {"x": jnp.ones(3), "y": jnp.ones(4)}}},
            ValueError,
            "arrays of the examples must be equally long; they have 3 and 4",
        ),
        ({"draw": lambda key, data: {}}, ValueError, 'the data of a training has "train"'),
    ],
)
def test_what_is_wrong_is_said(data, changed, error, message):
    arguments = {
        "model": Nnx, "loss": nnx_loss, "optimizer": adam, "epochs": 10, "batch_size": BATCH,
        "evaluate": scored,
    } | changed  # fmt: skip
    with pytest.raises(error, match=message):
        sweep.sweep(sweep.training(**arguments), GRID, data, progress=False)


def test_without_flax_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "flax", None)
    with pytest.raises(ImportError, match="needs Flax: pip install flax"):
        sweep.training(Nnx, nnx_loss, adam, epochs=1, batch_size=BATCH)


@pytest.mark.parametrize("n", [1, 2, 65, 50_000])
def test_the_shuffle_is_a_permutation(n):
    order = jax.jit(permutation, static_argnums=1)(jax.random.key(n), n)
    np.testing.assert_array_equal(np.sort(order), np.arange(n))


def test_every_order_is_as_likely():
    keys = jax.random.split(jax.random.key(0), 48_000)
    orders = np.asarray(jax.jit(jax.vmap(lambda key: permutation(key, 4)))(keys))
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 24 and stats.chisquare(counts).pvalue > 0.01


def test_examples_that_fill_no_batch_are_left_out():
    batches = minibatches(jax.random.key(0), 10, 4)
    assert batches.shape == (2, 4) and len(np.unique(batches)) == 8
