"""What PyTorch's `param_groups` say, beside what an optimizer of this library was made with."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from adamw_jax.decay import decoupled_weight_decay, l2_regularization
from adamw_jax.interchange.meaning import calls
from adamw_jax.merges import ratio, rms_ratio
from adamw_jax.moments import heavy_ball, infinity_moment, momentum, second_moment
from adamw_jax.schedules import scale_by_learning_rate

Group = Mapping[str, Any]

# By the name in PyTorch, where the number stands here: pieces and the name of their argument.
FIRST = {momentum: "b1", heavy_ball: "b1"}
SECOND = {second_moment: "b2", infinity_moment: "b2"}
L2, DECOUPLED = {l2_regularization: "l2"}, {decoupled_weight_decay: "weight_decay"}
DECAYS = {
    "weight_decay": L2 | DECOUPLED,  # an AdamW of older versions does not say which
    "weight_decay (L2)": L2,
    "weight_decay (decoupled)": DECOUPLED,
}
PLACES = DECAYS | {
    "lr": {scale_by_learning_rate: "learning_rate"},
    "betas[0]": FIRST,
    "betas[1]": SECOND,
    "eps": {rms_ratio: "eps", ratio: "eps"},
    "alpha": SECOND,
    "momentum": FIRST,
    "nesterov": {momentum: "nesterov", heavy_ball: "nesterov"},
}
# What does nothing: there need be no piece for it, and there may be one beside others.
NEUTRAL = dict.fromkeys([*DECAYS, "momentum", "nesterov"], 0.0) | {"lr": 1.0}


def check_hyperparameters(optimizer: Any, groups: Iterable[Group]) -> None:
    """Raises a ValueError for numbers in which PyTorch's groups and an optimizer differ.

    Schedules and arrays are not compared.
    """
    theirs: dict[str, set[float]] = {}
    for group in groups:
        for name, value in _numbers(group):
            theirs.setdefault(name, set()).add(value)
    ours = list(calls(optimizer))
    differing = []
    for name, values in theirs.items() if ours else ():
        places = PLACES[name]
        found = [arguments.get(places[call]) for call, arguments in ours if call in places]
        numbers = {float(x) for x in found if isinstance(x, int | float)}
        there, here = (side - {NEUTRAL.get(name)} for side in (values, numbers))
        if all(isinstance(x, int | float) for x in found) and not _same(there, here):
            differing.append(f"{name} is {_listed(there)} there and {_listed(here)} here")
    if differing:
        raise ValueError(
            "PyTorch's hyperparameters are not this optimizer's:\n  "
            + "\n  ".join(differing)
            + "\nIf that is intended, pass check_hyperparameters=False"
        )


def check_warm_up(group: Group, steps: int) -> None:
    """Raises a ValueError while PyTorch's NAdam warms b1 up, which is constant here."""
    b1, decay = float(group["betas"][0]), group["momentum_decay"]
    now = b1 * _warmth(decay, steps + 1)
    if b1 - now > 1e-6 or abs(product_of_warm_up(group, steps) - b1**steps) > 1e-6:
        raise ValueError(
            f"PyTorch's NAdam warms b1 up: at step {steps + 1} it is {now:.7g} with "
            f"momentum_decay={decay}, and {b1} in this optimizer"
        )


def product_of_warm_up(group: Group, steps: int) -> float:
    """PyTorch's `mu_product`, the product of b1 over the steps."""
    warmth = _warmth(group["momentum_decay"], np.arange(1, steps + 1))
    return float(np.prod(float(group["betas"][0]) * warmth))


def _warmth(decay: float, step: Any) -> Any:
    return 1 - 0.5 * 0.96 ** (step * decay)


def _numbers(group: Group) -> Iterator[tuple[str, float]]:
    for name in "lr", "eps", "alpha", "momentum", "nesterov":
        if name in group:
            yield name, float(group[name])
    for i, beta in enumerate(group.get("betas", ())):
        yield f"betas[{i}]", float(beta)
    if "weight_decay" in group:
        kinds = {None: "", False: " (L2)", True: " (decoupled)"}
        kind = kinds[group.get("decoupled_weight_decay")]
        yield f"weight_decay{kind}", float(group["weight_decay"])


def _same(theirs: set[float], ours: set[float]) -> bool:
    pairs = zip(sorted(theirs), sorted(ours), strict=False)
    return len(theirs) == len(ours) and all(math.isclose(x, y, rel_tol=1e-6) for x, y in pairs)


def _listed(values: set[float]) -> str:
    return " and ".join(f"{value:.7g}" for value in sorted(values)) or "not set"
