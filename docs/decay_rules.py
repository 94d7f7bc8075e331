"""Rules of weight decay beside each other over one schedule, as `decay_report` measures them.

    .venv/bin/python -m docs.decay_rules

draws docs/figures/decay-rules.png and prints the table of docs/weight-decay.md.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import adamw_jax as aj
from adamw_jax import bias_correction, chain, momentum, parallel
from experiments.harness import plots, report

FIGURE = Path(__file__).parent / "figures/decay-rules.png"
STEPS, WARM_UP, PEAK, WEIGHT_DECAY = 10_000, 500, 1e-3, 0.3
δ, HUBER = 0.1, "Huber, δ = 0.1"

rate = optax.warmup_cosine_decay_schedule(0.0, PEAK, WARM_UP, STEPS)
down = aj.scale_by_learning_rate(rate)
START = jnp.full((16, 16), 0.5)


def relative(step):
    """The rate as a part of its peak."""
    return rate(step) / PEAK


def pulled(pull):
    """A stage that adds a function of the weights."""
    return optax.stateless_with_tree_map(lambda u, w: u + WEIGHT_DECAY * pull(w))


weights = optax.stateless(lambda updates, params: params)
average = chain(weights, momentum(0.999), bias_correction(0.999))
to_average = parallel(
    chain(), weights, average, merge=lambda u, w, mean: u + WEIGHT_DECAY * (w - mean)
)
RULES = {
    "AdamW; AdamC without a norm": aj.adamw(rate, weight_decay=WEIGHT_DECAY),
    "λ ∝ α²; AdamC before a norm": aj.adamw(
        rate, weight_decay=lambda step: WEIGHT_DECAY * relative(step)
    ),
    "independent": aj.decayed_per_step(aj.adam(rate), WEIGHT_DECAY * PEAK),
    HUBER: chain(aj.scale_by_adam(), pulled(lambda w: jnp.clip(w, -δ, δ)), down),
    "to the first weights": chain(aj.scale_by_adam(), pulled(lambda w: w - START), down),
    "to averaged weights": chain(aj.scale_by_adam(), to_average, down),
}
COLORS = plots.BLUE, plots.VERMILION, plots.BLACK, plots.GREEN, plots.PURPLE, plots.ORANGE
DASHES = "-", "-", "-", (0, (1, 2)), (0, (4, 3)), (0, (6, 2))


def left_of_one(tx: optax.GradientTransformation) -> np.ndarray:
    """What steps without gradients leave of a weight of 1."""

    def step(carry, _):
        w, state = carry
        updates, state = tx.update(jnp.zeros_like(w), state, w)
        w = optax.apply_updates(w, updates)
        return (w, state), w[0]

    start = jnp.ones(1)
    _, left = jax.lax.scan(step, (start, tx.init(start)), length=STEPS)
    return np.asarray(left)


def main() -> None:
    """Measures, draws and prints."""
    figure, ((left, right),) = plots.subplots(2, height=4.4, width=13.0)
    rows, labels = [], []
    for (name, tx), color, dashes in zip(RULES.items(), COLORS, DASHES, strict=True):
        ((row,), _) = aj.decay_report(tx, START, steps=STEPS)
        run = row.over_run
        assert run is not None
        remains = left_of_one(tx) if row.up_to < np.inf else np.cumprod(1 - run.per_step)
        left.plot(1e4 * run.per_step, color=color, linestyle=dashes)
        (line,) = right.plot(remains, color=color, linestyle=dashes)
        labels.append((line, name))
        up_to = "" if row.up_to == np.inf else f", up to {row.up_to:.3g}"
        timescales = row.timescale, run.timescale_at_end
        rows.append(
            (
                name, row.towards + up_to, f"{row.decay_per_step:.1e}", f"{run.remaining:.0%}",
                f"{run.share:.0%}", *(f"{t:,.0f}" if t < 1e5 else f"{t:.0e}" for t in timescales),
            )
        )  # fmt: skip
    left.set(
        xlabel="step", ylabel="λ per step, × 10⁻⁴", title="The same largest λ, …", ylim=(0, None)
    )
    right.set(
        xlabel="step", ylabel="remains", ylim=(0, 1.02),
        title="… leaves 5 % to 85 % of a weight of 1",
    )  # fmt: skip
    for axis in (left, right):
        axis.set_xticks([0, STEPS // 2, STEPS], ["0", f"{STEPS // 2:,}", f"{STEPS:,}"])
    plots.label_ends(right, labels)
    figure.savefig(FIGURE, dpi=110, metadata={"Software": None})
    print(f"left of a weight of 1 by Huber's: {left_of_one(RULES[HUBER])[-1]:.0%}")
    head = "rule", "towards", "largest λ", "remains", "acts in", "τ at the peak", "τ at the end"
    print(report.markdown(report.Table("", head, rows)))


if __name__ == "__main__":
    main()
