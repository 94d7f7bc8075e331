def l2(λ):
    return lambda θ: (), lambda state, u, θ: (state, u + λ * θ)
