"""The equations that optimizers write, beside what the optimizers do."""

import ast
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import CASES
from evaluation import evaluated
from hypothesis import given, settings
from hypothesis import strategies as st

import adamw_jax as aj
from adamw_jax.notation import FORMULAS
from adamw_jax.notation.typesetting import LaTeX, Text


def taken(tx, θ, gradients):
    """θ after every step that an optimizer takes."""
    params, gradients = jax.tree.map(jnp.asarray, (θ, list(gradients)))
    state = tx.init(params)
    for g in gradients:
        updates, state = tx.update(g, state, params)
        params = optax.apply_updates(params, updates)
        yield jax.tree.map(np.asarray, params)


def check(tx, θ, gradients, **options):
    with jax.enable_x64(True), np.errstate(invalid="ignore"):  # RAdam's first r have no value
        steps = taken(tx, θ, gradients), evaluated(aj.equations(tx), θ, gradients, **options)
        for expected, got in zip(*steps, strict=True):
            np.testing.assert_allclose(got["θ"], expected, rtol=1e-9, atol=1e-11)


@pytest.fixture
def run():
    rng = np.random.default_rng(0)
    return rng.normal(size=5), rng.normal(size=(8, 5)) * 10.0 ** rng.uniform(-3, 1, size=5)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_rule_is_what_the_optimizer_does(case, run):
    check(case.tx(), *run, rule="path('*')", mask=0)  # the mask is that of matrices


@pytest.mark.parametrize("case", [case for case in CASES if case.scheduled], ids=str)
def test_with_schedules(case, run):
    schedules = {
        name: lambda step, value=case.numbers[name]: value * 0.9 ** jnp.asarray(step, float)
        for name in case.scheduled
    }
    check(case.tx(**schedules), *run, mask=0)


def test_a_mask_is_a_factor_of_the_decay(run):
    for mask in True, False:
        check(aj.adam_prox(0.1, weight_decay=0.5, mask=mask), *run, mask=mask)


def test_every_group_has_its_own_rule(run):
    groups = {"*a": aj.adamw(0.1, 0.8), "*b": aj.heavy_ball_gd(0.2, 0.7)}
    tx = aj.chain(aj.l2_regularization(0.1), aj.partition(groups))
    θ, gradients = run
    *_, both = taken(tx, {"a": θ, "b": θ}, [{"a": g, "b": g} for g in gradients])
    for name, last in both.items():
        *_, got = evaluated(aj.equations(tx), θ, gradients, f"path('*{name}')")
        np.testing.assert_allclose(last, got["θ"], rtol=1e-4)


product, shortfall = lambda a, b: a * b, lambda a, b: a - 2 * b

# Compositions that nobody wrote. Their pieces are continuous, so that rounding does not matter.
rates, falling = st.sampled_from([0.1, 0.5, 0.9]), lambda step: 0.5 ** jnp.asarray(step, float)
pieces = st.one_of(
    st.just(aj.chain()),
    st.builds(aj.momentum, rates, nesterov=st.booleans()),
    st.builds(aj.momentum, rates, previous=st.just(True)),
    st.builds(aj.heavy_ball, rates, nesterov=st.booleans()),
    st.builds(aj.second_moment, rates),
    st.builds(aj.infinity_moment, rates),
    st.builds(aj.bias_correction, rates, ahead=st.integers(0, 2)),
    st.builds(aj.running_max),
    st.builds(aj.l2_regularization, rates),
    st.builds(aj.proximal_weight_decay, rates),
    st.builds(aj.scale_by_learning_rate, rates | st.just(1), flip_sign=st.booleans()),
    st.builds(aj.temporal_average, rates),
    st.builds(aj.decoupled_weight_decay, rates, mask=st.none() | st.booleans()),
    st.builds(aj.decayed_per_step, st.just(aj.gd(0.5)), rates, st.just(falling)),
    st.builds(aj.adamw, rates, rates, rates, eps=st.just(0.1), nesterov=st.booleans()),
)
merges = st.sampled_from(
    [jnp.add, jnp.subtract, jnp.multiply, jnp.arctan2, aj.difference(), product, shortfall]
) | st.builds(aj.nesterov_lookahead, rates)
compositions = st.recursive(
    pieces,
    lambda parts: (
        st.lists(parts, max_size=3).map(lambda parts: aj.chain(*parts))
        | st.builds(aj.parallel, parts, parts, merge=merges)
        | parts.map(lambda part: aj.partition({"*": part}))
    ),
    max_leaves=6,
)


@given(compositions)
@settings(max_examples=60)
def test_any_composition_writes_what_it_does(tx):
    gradients = np.array([[0.5, 2.0], [-1.0, 0.25], [1.5, -1.0]])
    check(tx, np.array([1.0, -0.5]), gradients, rule="path('*')")


def test_what_is_remembered_after_the_step_sees_what_was_before_it(run):
    before = aj.momentum(0.9, previous=True)
    check(aj.chain(before, before), *run)  # the second remembers what the first had remembered
    check(aj.chain(aj.adamw(0.1), before), *run)  # … and the step with its old θ


def written(tx, **options):
    return str(aj.equations(tx, **options)).splitlines()


ADAM = [
    "m ← m + (1 − β₁)(g − m)",
    "m̂ ← m / (1 − β₁ᵗ)",
    "v ← v + (1 − β₂)(g² − v)",
    "v̂ ← v / (1 − β₂ᵗ)",
]


def test_adam():
    assert written(aj.adam(1e-3)) == [*ADAM, "θ ← θ − α m̂ / (√v̂ + ε)"]


def test_adamw():
    assert written(aj.adamw(1e-3)) == [*ADAM, "θ ← θ − α (m̂ / (√v̂ + ε) + λ θ)"]


def test_adamw_with_values():
    assert written(aj.adamw(1e-3, weight_decay=0.25, mask=aj.decay_except()), values=True) == [
        *ADAM,
        "θ ← θ − α (m̂ / (√v̂ + ε) + λ 1[mask] θ)",
        "β₁ = 0.9, β₂ = 0.999, ε = 10⁻⁸, λ = 0.25, mask = decay_except(), α = 0.001",
    ]


def test_adamw_in_latex():
    assert aj.equations(aj.adamw(1e-3), values=True)._repr_latex_().splitlines() == [
        r"$$\begin{aligned}",
        r"m &\leftarrow m + \left(1 - \beta_{1}\right)\left(g - m\right) \\",
        r"\hat{m} &\leftarrow \frac{m}{1 - \beta_{1}^{t}} \\",
        r"v &\leftarrow v + \left(1 - \beta_{2}\right)\left(g^{2} - v\right) \\",
        r"\hat{v} &\leftarrow \frac{v}{1 - \beta_{2}^{t}} \\",
        r"\theta &\leftarrow \theta - \alpha "
        r"\left(\frac{\hat{m}}{\sqrt{\hat{v}} + \varepsilon} + \lambda \theta\right) \\",
        r"&\beta_{1} = 0.9,\ \beta_{2} = 0.999,\ \varepsilon = 10^{-8},\ \lambda = 0.0001,\ "
        r"\alpha = 0.001",
        r"\end{aligned}$$",
    ]


# The last line of some relatives, as docs/family.md has them.
STEPS = {
    aj.gd(0.1): "θ ← θ − α g",
    aj.sgdw(0.1, schedule=0.5): "θ ← θ − (m + λ θ)",
    aj.nadam(0.1): "θ ← θ − α (β₁ m̂ + (1 − β₁) ĝ) / (√v̂ + ε)",
    aj.amsgrad(0.1): "θ ← θ − α m̂ / (√v̂_max + ε)",
    aj.adam_prox(0.1): "θ ← (θ − α m̂ / (√v̂ + ε)) / (1 + λ)",
    aj.cautious_adamw(0.1): "θ ← θ − α (u + λ 1[u θ ≥ 0] θ)",
    aj.decayed_per_step(aj.adam(0.1), 0.1, 0.5): "θ ← θ − η (α m̂ / (√v̂ + ε) + λ θ)",
    aj.lion(0.1): "m ← m + (1 − β₂)(g − m)",  # after the step: its θ is the line before
    aj.chain(aj.gd(0.1), aj.temporal_average(0.9)): "θ̄ ← θ̄ + (1 − β₂)(θ − θ̄) / (1 − β₂ᵗ)",
}


@pytest.mark.parametrize("tx", STEPS, ids=STEPS.get)
def test_the_last_line(tx):
    assert written(tx)[-1] == STEPS[tx]


def test_a_schedule_is_a_function_of_the_step():
    schedule = optax.cosine_decay_schedule(0.1, 10)
    assert written(aj.gd(schedule)) == ["α ← cosine_decay_schedule(t − 1)", "θ ← θ − α g"]
    assert written(aj.adamwr(0.1, 10), values=True)[4:] == [
        "λ ← renormalized_decay(t − 1)",
        "η ← cosine_warm_restarts(t − 1)",
        "θ ← θ − η (α m̂ / (√v̂ + ε) + λ θ)",
        "β₁ = 0.9, β₂ = 0.999, ε = 10⁻⁸, α = 0.1",
        "renormalized_decay(0.025, 10, 1)",
        "cosine_warm_restarts(10, 1)",
    ]


def test_what_is_the_same_is_written_once_and_what_differs_has_another_name():
    m = aj.momentum(0.9)
    assert written(aj.parallel(m, m, merge=jnp.add)) == ["m ← m + (1 − β₁)(g − m)", "θ ← θ + m + m"]
    assert written(aj.chain(m, m)) == [
        "m ← m + (1 − β₁)(g − m)",
        "m₂ ← m₂ + (1 − β₁)(m − m₂)",
        "θ ← θ + m₂",
    ]
    assert written(aj.parallel(m, aj.momentum(0.5), merge=jnp.add), values=True) == [
        "m ← m + (1 − β₁)(g − m)",
        "m₂ ← m₂ + (1 − β₂)(g − m₂)",
        "θ ← θ + m + m₂",
        "β₁ = 0.9, β₂ = 0.5",
    ]


def test_equal_rates_of_the_two_moments_keep_their_symbols():
    assert written(aj.adam(0.1, 0.95, 0.95))[:4] == ADAM


def test_groups():
    groups = {aj.kind("bias"): aj.gd(0.5), "*": aj.chain(optax.sgd(0.1))}
    assert written(aj.partition(groups), values=True) == [
        "for kind('bias'):",
        "  u ← −α g",
        "  α = 0.5",
        "for path('*'):",
        "  u₂ ← optax chain(g)",
        "  u ← u₂",
        "θ ← θ + u",
    ]


def test_what_follows_groups_has_other_names_than_theirs(run):
    """Else m would be remembered by two pieces at once."""
    tx = aj.chain(aj.partition({"*": aj.momentum(0.8)}), aj.momentum(0.5))
    assert written(tx, values=True) == [
        "for path('*'):",
        "  m ← m + (1 − β₁)(g − m)",
        "  u ← m",
        "  β₁ = 0.8",
        "m₂ ← m₂ + (1 − β₂)(u − m₂)",
        "θ ← θ + m₂",
        "β₂ = 0.5",
    ]
    check(tx, *run, rule="path('*')")
    check(aj.chain(aj.partition({"*": aj.partition({"*": tx})}), tx), *run, rule="path('*')")


def test_of_another_librarys_transformation_the_name_is_known():
    tx = aj.chain(aj.scale_by_adam(), optax.scale_by_trust_ratio(), aj.scale_by_learning_rate(0.1))
    assert written(tx)[4:] == [
        "u ← m̂ / (√v̂ + ε)",
        "u₂ ← optax scale_by_trust_ratio(u)",
        "θ ← θ − α u₂",
    ]
    assert written(optax.clip(1.0)) == ["u ← optax clip(g)", "θ ← θ + u"]
    assert written(aj.chain(optax.clip(1.0), optax.clip(2.0))) == [
        "u ← optax clip(g)",
        "u₂ ← optax clip_2(u)",
        "θ ← θ + u₂",
    ]


def test_functions_of_users():
    first = aj.parallel(aj.chain(), aj.momentum(0.9), merge=product)
    tx = aj.parallel(first, aj.chain(), merge=shortfall)
    assert written(tx)[1] == "θ ← θ + f₂(f(g, m), g)"
    assert written(aj.parallel(first, merge=jnp.tanh))[1] == "θ ← θ + tanh(f(g, m))"


def leak(rate):
    return aj.piece(aj.describe(leak, rate), _leak, (rate,), state=aj.MomentumState)


def _leak(rate):
    return lambda g, m: (g - rate * m, g)


def blend(weight):
    return aj.Merge(aj.describe(blend, weight), _blend, (weight,))


def _blend(weight):
    return lambda a, b: weight * a + (1 - weight) * b


def test_a_piece_of_ones_own_is_a_function_until_it_has_a_formula(monkeypatch, run):
    tx = aj.chain(aj.parallel(leak(0.5), aj.chain(), merge=blend(0.25)), aj.gd(0.1))
    assert written(tx, values=True) == [
        "u ← leak(g)",
        "θ ← θ − α blend(u, g)",
        "α = 0.1",
        "leak(0.5)",
        "blend(0.25)",
    ]
    monkeypatch.setitem(FORMULAS, leak, ("g", "gone = rate * s; g - gone; s = g"))
    monkeypatch.setitem(FORMULAS, blend, ("a b", "weight * a + (1 - weight) * b"))
    assert written(tx, values=True) == [
        "gone ← rate s",
        "θ ← θ − α (weight (g − gone) + (1 − weight) g)",
        "s ← g",
        "rate = 0.5, weight = 0.25, α = 0.1",
    ]
    check(tx, *run)


@pytest.mark.parametrize(
    "formula, message",
    [
        (("a b", "a + b"), "the formula of leak reads 'a b', but 1 value"),
        (("g", "g += 1"), "assignments and one expression, got 'g += 1'"),
        (("g", "g @ g"), "no notation for 'g @ g'"),
    ],
)
def test_a_wrong_formula_is_refused(monkeypatch, formula, message):
    monkeypatch.setitem(FORMULAS, leak, formula)
    with pytest.raises(ValueError, match=re.escape(message)):
        str(aj.equations(leak(0.5)))


@pytest.mark.parametrize(
    "formula, text, latex",
    [
        ("a - (b - c) + d", "a − (b − c) + d", r"a - \left(b - c\right) + d"),
        ("-(a + b)", "−(a + b)", r"-\left(a + b\right)"),
        ("(a + b) * (c - d) / e", "(a + b)(c − d) / e", None),
        ("a / b * c", "(a / b) c", r"\frac{a}{b} c"),
        ("a * (b / c)", "a b / c", r"a \frac{b}{c}"),
        ("a / (b * c)", "a / (b c)", r"\frac{a}{b c}"),
        ("(a * b)**2", "(a b)²", r"\left(a b\right)^{2}"),
        ("(a / b)**2", "(a / b)²", r"\left(\frac{a}{b}\right)^{2}"),
        ("a**(t + 1) + a**(n + 1)", "aᵗ⁺¹ + a^(n + 1)", "a^{t + 1} + a^{n + 1}"),
        ("sqrt(abs(a) + b) * sqrt(c)", "√(|a| + b) √c", None),
        ("2.5e-6 * a + 1e20 * b", "2.5·10⁻⁶ a + 10²⁰ b", r"2.5 \cdot 10^{-6} a + 10^{20} b"),
        ("a if b > 1 else c", "a if b > 1, otherwise c", None),
        ("λʹ * x̂_rect2 + ȳ3", "λ′ x̂_rect₂ + ȳ₃", r"\lambda' \hat{x}_{\text{rect}2} + \bar{y}_{3}"),
        ("max(a, my_rate)", "max(a, my_rate)", r"\max\left(a, \text{my}\_\text{rate}\right)"),
    ],
)
def test_notation(formula, text, latex):
    tree = ast.parse(formula, mode="eval").body
    assert Text().write(tree) == text
    assert latex is None or LaTeX().write(tree) == latex


def test_signs_move_outwards_and_cancel():
    down, half = aj.scale_by_learning_rate(0.1), aj.scale_by_learning_rate(0.5, flip_sign=False)
    assert written(aj.chain(down, half)) == ["θ ← θ − η α g"]
    assert written(aj.chain(down, down)) == ["θ ← θ + α α g"]
    assert written(aj.parallel(aj.chain(), down, merge=jnp.add)) == ["θ ← θ + g − α g"]
    groups = {"*": aj.decayed_per_step(aj.gd(0.1), 0.2, 0.5)}
    assert written(aj.partition(groups))[1] == "  u ← −η (α g + λ θ)"
    decays = aj.chain(aj.gd(0.3), aj.decoupled_weight_decay(0.2))
    assert written(decays) == ["θ ← θ − α g + λ θ"]
    merged = {merge: written(aj.parallel(down, decays, merge=merge))[-1] for merge in SIGNED}
    assert merged == SIGNED


SIGNED = {
    jnp.add: "θ ← θ − α g − η g + λ θ",
    jnp.subtract: "θ ← θ − α g − (−η g + λ θ)",
    jnp.multiply: "θ ← θ − α g (−η g + λ θ)",
}


def test_arrays_are_not_read():
    seen = []

    def write(rate):
        seen.append(written(aj.gd(rate), values=True)[-1])

    write(jnp.float32(0.1))
    jax.eval_shape(write, jnp.float32(0.1))
    assert seen == ["α = array float32[]", "α = tracer float32[]"]


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="equations takes gradient transformations"):
        aj.equations(aj.adam)
    with pytest.raises(ValueError, match="values must be True or False"):
        aj.equations(aj.adam(0.1), values="no")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_latex_is_balanced(case):
    latex = aj.equations(case.tx(), values=True)._repr_latex_()
    assert latex.startswith("$$") and latex.endswith("$$")
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", latex):
        depth += 1 if brace == "{" else -1
        assert depth >= 0
    assert depth == 0
    assert latex.count(r"\left(") == latex.count(r"\right)")
    begun, ended = (re.findall(rf"\\{word}{{(\w+)}}", latex) for word in ("begin", "end"))
    assert sorted(begun) == sorted(ended)
    assert latex.isascii()  # so that every renderer of LaTeX can read it
