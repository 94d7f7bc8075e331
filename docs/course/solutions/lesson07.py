from lesson05 import chain, direction, downhill
from lesson06 import l2


def adamw(α, b1, b2, eps, λ):
    return chain(direction(b1, b2, eps), l2(λ), downhill(α))
