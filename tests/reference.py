"""Independent float64 NumPy references, in the notation of the papers.

Every function takes θ, a function `gradient(θ, t)` with t = 1, 2, …, and the number of
steps, and returns θ after them. A rate may be a number or a function of t − 1, which is
the step that a schedule sees. Complex θ is allowed: |g|² takes the place of g².
"""

import numpy as np


def at(rate, t):
    return rate(t - 1) if callable(rate) else rate


def gradient_descent(θ, gradient, steps, *, α):
    for t in range(1, steps + 1):
        θ = θ - at(α, t) * gradient(θ, t)
    return θ


def momentum(θ, gradient, steps, *, α, β1=0.9, nesterov=False):
    """m ← β₁m + (1−β₁)g; Nesterov steps along what m is if the same g comes once more."""
    m = np.zeros_like(θ)
    for t in range(1, steps + 1):
        g = gradient(θ, t)
        m = β1 * m + (1 - β1) * g
        θ = θ - at(α, t) * (β1 * m + (1 - β1) * g if nesterov else m)
    return θ


def uncorrected_adam(θ, gradient, steps, *, α, β1=0.9, β2=0.999, ε=1e-8, ε_root=0.0):
    """Adam without its bias correction, Adam §6.4."""
    m, v = np.zeros_like(θ), np.zeros_like(np.abs(θ))
    for t in range(1, steps + 1):
        g = gradient(θ, t)
        m = β1 * m + (1 - β1) * g
        v = β2 * v + (1 - β2) * np.abs(g) ** 2
        θ = θ - at(α, t) * m / (np.sqrt(v + ε_root) + ε)
    return θ


def adam(θ, gradient, steps, *, α, β1=0.9, β2=0.999, ε=1e-8, ε_root=0.0):
    """Adam, Algorithm 1 (arXiv 1412.6980)."""
    m, v = np.zeros_like(θ), np.zeros_like(np.abs(θ))
    for t in range(1, steps + 1):
        g = gradient(θ, t)
        m = β1 * m + (1 - β1) * g
        v = β2 * v + (1 - β2) * np.abs(g) ** 2
        m_hat = m / (1 - β1**t)
        v_hat = v / (1 - β2**t)
        θ = θ - at(α, t) * m_hat / (np.sqrt(v_hat + ε_root) + ε)
    return θ


def nadam(θ, gradient, steps, *, α, λ=0.0, β1=0.9, β2=0.999, ε=1e-8, ε_root=0.0, η=1.0):
    """NAdam, Algorithm 2 of Dozat (2016) with a constant μ = β₁; decay as in AdamW."""
    m, n = np.zeros_like(θ), np.zeros_like(np.abs(θ))
    for t in range(1, steps + 1):
        g = gradient(θ, t)
        m = β1 * m + (1 - β1) * g
        n = β2 * n + (1 - β2) * np.abs(g) ** 2
        m_hat = β1 * m / (1 - β1 ** (t + 1)) + (1 - β1) * g / (1 - β1**t)
        n_hat = n / (1 - β2**t)
        step = m_hat / (np.sqrt(n_hat + ε_root) + ε)
        θ = θ - at(η, t) * (at(α, t) * step + at(λ, t) * θ)
    return θ


def adam_l2(θ, gradient, steps, *, α, λ, **adams):
    """Algorithm 2 of arXiv 1711.05101, the line in pink: g ← ∇f(θ) + λθ."""
    return adam(θ, lambda θ, t: gradient(θ, t) + at(λ, t) * θ, steps, α=α, **adams)


def adamw(θ, gradient, steps, *, α, λ, β1=0.9, β2=0.999, ε=1e-8, η=1.0):
    """Algorithm 2 of arXiv 1711.05101, the line in green: θ ← θ − η(α m̂/(√v̂+ε) + λθ).

    λ is the decay per step here. PyTorch and Optax write α·weight_decay for it.
    """
    m, v = np.zeros_like(θ), np.zeros_like(np.abs(θ))
    for t in range(1, steps + 1):
        g = gradient(θ, t)
        m = β1 * m + (1 - β1) * g
        v = β2 * v + (1 - β2) * np.abs(g) ** 2
        m_hat = m / (1 - β1**t)
        v_hat = v / (1 - β2**t)
        θ = θ - at(η, t) * (at(α, t) * m_hat / (np.sqrt(v_hat) + ε) + at(λ, t) * θ)
    return θ


# The relatives. λ is the decay per step throughout, as in AdamW's Algorithm 2:
# θ ← θ − η(α · step + λθ).


def heavy_ball(θ, gradient, steps, *, α, λ=0.0, β1=0.9, η=1.0, nesterov=False):
    """Polyak (1964): m ← β₁m + g. Nesterov's form (Sutskever et al., 2013): β₁m + g again."""
    m = np.zeros_like(θ)
    for t in range(1, steps + 1):
        g = gradient(θ, t)
        m = β1 * m + g
        step = β1 * m + g if nesterov else m
        θ = θ - at(η, t) * (at(α, t) * step + at(λ, t) * θ)
    return θ


def sgdw(θ, gradient, steps, *, α, λ, β1=0.9, η=1.0):
    """SGDW, Algorithm 1 of arXiv 1711.05101, the line in green."""
    m = np.zeros_like(θ)
    for t in range(1, steps + 1):
        m = β1 * m + at(η, t) * at(α, t) * gradient(θ, t)
        θ = θ - m - at(η, t) * at(λ, t) * θ
    return θ


def rmsprop(θ, gradient, steps, *, α, λ=0.0, β2=0.9, ε=1e-8, ε_root=0.0, η=1.0):
    """RMSprop, Tieleman & Hinton (2012), Lecture 6.5: no momentum, no correction."""
    v = np.zeros_like(np.abs(θ))
    for t in range(1, steps + 1):
        g = gradient(θ, t)
        v = β2 * v + (1 - β2) * np.abs(g) ** 2
        step = g / (np.sqrt(v + ε_root) + ε)
        θ = θ - at(η, t) * (at(α, t) * step + at(λ, t) * θ)
    return θ


def amsgrad(
    θ,
    gradient,
    steps,
    *,
    α,
    λ=0.0,
    β1=0.9,
    β2=0.999,
    ε=1e-8,
    ε_root=0.0,
    η=1.0,
    max_before_correction=False,
):
    """AMSGrad, Algorithm 2 of arXiv 1904.09237, with Adam's corrections.

    The maximum over the steps is taken of the corrected v̂, or of v and then corrected.
    """
    m, v = np.zeros_like(θ), np.zeros_like(np.abs(θ))
    largest = np.zeros_like(v)
    for t in range(1, steps + 1):
        g = gradient(θ, t)
        m = β1 * m + (1 - β1) * g
        v = β2 * v + (1 - β2) * np.abs(g) ** 2
        candidate = v if max_before_correction else v / (1 - β2**t)
        largest = np.where(candidate > largest, candidate, largest)
        v_hat = largest / (1 - β2**t) if max_before_correction else largest
        step = m / (1 - β1**t) / (np.sqrt(v_hat + ε_root) + ε)
        θ = θ - at(η, t) * (at(α, t) * step + at(λ, t) * θ)
    return θ


def adamax(θ, gradient, steps, *, α, λ=0.0, β1=0.9, β2=0.999, ε=1e-8, η=1.0):
    """AdaMax, Algorithm 2 of arXiv 1412.6980, where ε = 0."""
    m, u = np.zeros_like(θ), np.zeros_like(np.abs(θ))
    for t in range(1, steps + 1):
        g = gradient(θ, t)
        m = β1 * m + (1 - β1) * g
        u = np.maximum(β2 * u, np.abs(g))
        step = 1 / (1 - β1**t) * m / (u + ε)
        θ = θ - at(η, t) * (at(α, t) * step + at(λ, t) * θ)
    return θ


def radam(
    θ,
    gradient,
    steps,
    *,
    α,
    λ=0.0,
    β1=0.9,
    β2=0.999,
    ε=1e-8,
    ε_root=0.0,
    η=1.0,
    threshold=4.0,
    nesterov=False,
):
    """RAdam, Algorithm 2 of arXiv 1908.03265, where ε = 0.

    `rectification` puts v̂/r² for v̂, and at first 1 for v̂; then come ε_root and ε.
    """
    m, v = np.zeros_like(θ), np.zeros_like(np.abs(θ))
    ρ_inf = 2 / (1 - β2) - 1
    for t in range(1, steps + 1):
        g = gradient(θ, t)
        m = β1 * m + (1 - β1) * g
        v = β2 * v + (1 - β2) * np.abs(g) ** 2
        m_hat = m / (1 - β1**t)
        if nesterov:
            m_hat = β1 * m / (1 - β1 ** (t + 1)) + (1 - β1) * g / (1 - β1**t)
        ρ = ρ_inf - 2 * t * β2**t / (1 - β2**t)
        rectified = np.ones_like(v)
        if ρ > threshold:
            r = np.sqrt((ρ - 4) * (ρ - 2) * ρ_inf / ((ρ_inf - 4) * (ρ_inf - 2) * ρ))
            rectified = v / (1 - β2**t) / r**2
        step = m_hat / (np.sqrt(rectified + ε_root) + ε)
        θ = θ - at(η, t) * (at(α, t) * step + at(λ, t) * θ)
    return θ


def adabelief(
    θ,
    gradient,
    steps,
    *,
    α,
    λ=0.0,
    β1=0.9,
    β2=0.999,
    ε=1e-16,
    ε_root=1e-16,
    η=1.0,
    nesterov=False,
):
    """AdaBelief, Algorithm 2 of arXiv 2010.07468; its two ε are ε_root in s, and ε."""
    m, s = np.zeros_like(θ), np.zeros_like(np.abs(θ))
    for t in range(1, steps + 1):
        g = gradient(θ, t)
        m = β1 * m + (1 - β1) * g
        s = β2 * s + (1 - β2) * np.abs(g - m) ** 2 + ε_root
        m_hat = m / (1 - β1**t)
        if nesterov:
            m_hat = β1 * m / (1 - β1 ** (t + 1)) + (1 - β1) * g / (1 - β1**t)
        step = m_hat / (np.sqrt(s / (1 - β2**t)) + ε)
        θ = θ - at(η, t) * (at(α, t) * step + at(λ, t) * θ)
    return θ


def lion(θ, gradient, steps, *, α, λ=0.0, β1=0.9, β2=0.99, η=1.0):
    """Lion, Algorithm 2 of arXiv 2302.06675. The sign of a complex number is c/|c|."""
    m = np.zeros_like(θ)
    for t in range(1, steps + 1):
        g = gradient(θ, t)
        c = β1 * m + (1 - β1) * g
        θ = θ - at(η, t) * (at(α, t) * c / np.abs(c) + at(λ, t) * θ)
        m = β2 * m + (1 - β2) * g
    return θ


def adam_prox(θ, gradient, steps, *, α, λ, β1=0.9, β2=0.999, ε=1e-8, ε_root=0.0, η=1.0):
    """AdamProx, arXiv 2202.00089: θ ← (θ − ηα m̂/(√v̂+ε)) / (1 + ηλ)."""
    m, v = np.zeros_like(θ), np.zeros_like(np.abs(θ))
    for t in range(1, steps + 1):
        g = gradient(θ, t)
        m = β1 * m + (1 - β1) * g
        v = β2 * v + (1 - β2) * np.abs(g) ** 2
        m_hat = m / (1 - β1**t)
        v_hat = v / (1 - β2**t)
        step = m_hat / (np.sqrt(v_hat + ε_root) + ε)
        θ = (θ - at(η, t) * at(α, t) * step) / (1 + at(η, t) * at(λ, t))
    return θ


def cautious_adamw(θ, gradient, steps, *, α, λ, β1=0.9, β2=0.999, ε=1e-8, ε_root=0.0, η=1.0):
    """AdamW with cautious decay (arXiv 2510.12402).

    Complex u and θ agree where Re(u θ*) ≥ 0, their product as vectors of the plane.
    """
    m, v = np.zeros_like(θ), np.zeros_like(np.abs(θ))
    for t in range(1, steps + 1):
        g = gradient(θ, t)
        m = β1 * m + (1 - β1) * g
        v = β2 * v + (1 - β2) * np.abs(g) ** 2
        u = m / (1 - β1**t) / (np.sqrt(v / (1 - β2**t) + ε_root) + ε)
        agrees = u.real * θ.real + u.imag * θ.imag >= 0
        θ = θ - at(η, t) * (at(α, t) * u + np.where(agrees, at(λ, t) * θ, 0))
    return θ


def stable_adamw(θ, gradient, steps, *, α, λ, β1=0.9, β2=0.999, ε=1e-8):
    """StableAdamW, Algorithm 2 of arXiv 2304.13013, with its β̂ for the corrections.

    θ is one tensor of the model, over which the RMS is taken.
    """
    v, u = np.zeros_like(θ), np.zeros_like(np.abs(θ))
    for t in range(1, steps + 1):
        g = gradient(θ, t)
        β1_hat = β1 * (1 - β1 ** (t - 1)) / (1 - β1**t)
        β2_hat = β2 * (1 - β2 ** (t - 1)) / (1 - β2**t)
        v = β1_hat * v + (1 - β1_hat) * g
        u = β2_hat * u + (1 - β2_hat) * np.abs(g) ** 2
        rms = np.sqrt(np.mean(np.abs(g) ** 2 / np.maximum(u, ε**2)))
        shortened = 1 / max(1, rms)
        θ = θ - shortened * (at(λ, t) * θ + at(α, t) * v / (np.sqrt(u) + ε))
    return θ


# The second generation.


def schedule_free_adamw(θ, gradient, steps, *, α, λ=0.0, β1=0.9, β2=0.999, ε=1e-8, averaged=False):
    """Schedule-Free AdamW, Algorithm 1 of arXiv 2405.15682, which calls the rate γ.

    θ is y, where the gradient is taken; with `averaged` it is x, which the paper returns.
    """
    z, x, y, v, Σ = θ, θ, θ, np.zeros_like(np.abs(θ)), 0.0
    for t in range(1, steps + 1):
        g = gradient(y, t)
        v = β2 * v + (1 - β2) * np.abs(g) ** 2
        v_hat = v / (1 - β2**t)
        z = z - at(α, t) * g / (np.sqrt(v_hat) + ε) - at(λ, t) * y
        Σ = Σ + at(α, t) ** 2
        c = at(α, t) ** 2 / Σ
        x = (1 - c) * x + c * z
        y = (1 - β1) * z + β1 * x
    return x if averaged else y


def ademamix(
    θ, gradient, steps, *, α, λ=0.0, β1=0.9, β2=0.999, β3=0.9999, mix=5.0, ε=1e-8, ε_root=0.0
):
    """AdEMAMix, Algorithm 1 of arXiv 2409.03137; `mix` is its α, and α its η."""
    m1, m2, v = np.zeros_like(θ), np.zeros_like(θ), np.zeros_like(np.abs(θ))
    for t in range(1, steps + 1):
        g = gradient(θ, t)
        m1 = β1 * m1 + (1 - β1) * g
        m2 = at(β3, t) * m2 + (1 - at(β3, t)) * g
        v = β2 * v + (1 - β2) * np.abs(g) ** 2
        m1_hat, v_hat = m1 / (1 - β1**t), v / (1 - β2**t)
        step = (m1_hat + at(mix, t) * m2) / (np.sqrt(v_hat + ε_root) + ε)
        θ = θ - at(α, t) * step - at(λ, t) * θ
    return θ


def adopt(θ, gradient, steps, *, α, λ=0.0, β1=0.9, β2=0.9999, ε=1e-6, nesterov=False):
    """ADOPT, Algorithm 2 of arXiv 2411.02853, with v₀ = g₀² and c_t = t^¼; its t is t − 1 here.

    Decoupled decay acts in every step, also in that which only makes v₀.
    """
    m, v = np.zeros_like(θ), np.zeros_like(np.abs(θ))
    for t in range(1, steps + 1):
        g = gradient(θ, t)
        square = np.abs(g) ** 2
        if t == 1:
            v, step = square, np.zeros_like(θ)
        else:
            normalized = g / np.maximum(np.sqrt(v), ε)
            normalized = normalized * np.minimum(1, (t - 1) ** 0.25 / np.abs(normalized))
            m = β1 * m + (1 - β1) * normalized
            v = β2 * v + (1 - β2) * square
            step = β1 * m + (1 - β1) * normalized if nesterov else m
        θ = θ - at(α, t) * step - at(λ, t) * θ
    return θ


def c_adamw(θ, gradient, steps, *, α, λ, β1=0.9, β2=0.999, ε=1e-8, ε_root=0.0):
    """C-AdamW, arXiv 2411.16085; the mean of φ is at least 10⁻³, as in its authors' code."""
    m, v = np.zeros_like(θ), np.zeros_like(np.abs(θ))
    for t in range(1, steps + 1):
        g = gradient(θ, t)
        m = β1 * m + (1 - β1) * g
        v = β2 * v + (1 - β2) * np.abs(g) ** 2
        u = m / (1 - β1**t) / (np.sqrt(v / (1 - β2**t) + ε_root) + ε)
        φ = u.real * g.real + u.imag * g.imag > 0
        θ = θ - at(α, t) * φ * u / max(np.mean(φ), 1e-3) - at(λ, t) * θ
    return θ


def adafactor(θ, gradient, steps, *, α, λ=0.0, power=0.8, ε=1e-30, floor=1e-3):
    """Adafactor, Algorithms 4 (matrices) and 5 (vectors) of arXiv 1804.04235, with ρ_t = α."""
    R, C, V = 0.0, 0.0, 0.0
    for t in range(1, steps + 1):
        g = gradient(θ, t)
        β2 = 1 - t**-power
        square = np.abs(g) ** 2 + ε
        if θ.ndim == 2:
            R = β2 * R + (1 - β2) * square.sum(axis=1, keepdims=True)
            C = β2 * C + (1 - β2) * square.sum(axis=0, keepdims=True)
            V = R * C / R.sum()
        else:
            V = β2 * V + (1 - β2) * square
        U = g / np.sqrt(V)
        U = U / max(1, np.sqrt(np.mean(np.abs(U) ** 2)))
        size = max(floor, np.sqrt(np.mean(np.abs(θ) ** 2)))
        θ = θ - at(α, t) * size * U - at(λ, t) * θ
    return θ


def muon(θ, gradient, steps, *, α, λ=0.0, β1=0.95, ε=1e-7, nesterov=True):
    """Muon, Jordan et al. (2024): Newton–Schulz acts on the singular values alone.

    The last axis is that of the outputs.
    """
    m = np.zeros_like(θ)
    inputs, outputs = np.atleast_2d(θ).shape
    s = np.sqrt(max(1, outputs / inputs))
    for t in range(1, steps + 1):
        g = gradient(θ, t)
        m = β1 * m + (1 - β1) * g
        u = β1 * m + (1 - β1) * g if nesterov else m
        U, σ, V = np.linalg.svd(np.atleast_2d(u), full_matrices=False)
        σ = σ / (np.sqrt(np.sum(σ**2)) + ε)
        for _ in range(5):
            σ = 3.4445 * σ - 4.7750 * σ**3 + 2.0315 * σ**5
        step = ((U * σ) @ V).reshape(θ.shape)
        θ = θ - at(α, t) * s * step - at(λ, t) * θ
    return θ


def warm_restarts(step, T_0, T_mult):
    """T_cur and T_i at a step (SGDR, arXiv 1608.03983), by counting cycles in whole numbers."""
    if T_mult == 1:
        return step % T_0, T_0
    T_cur, T_i = step, T_0
    while T_cur >= T_i:
        T_cur, T_i = T_cur - T_i, T_i * T_mult
    return T_cur, T_i


def cosine(step, T_0, T_mult, η_min=0.0, η_max=1.0):
    """η of SGDR's eq. 5."""
    T_cur, T_i = warm_restarts(step, T_0, T_mult)
    return η_min + 0.5 * (η_max - η_min) * (1 + np.cos(np.pi * T_cur / T_i))


def adamwr(θ, gradient, steps, *, α, λ_norm, T_0, T_mult, **adams):
    """AdamWR, arXiv 1711.05101, App. B: T_0 and T_i in steps, so that b/(BT) = 1/T_i."""
    return adamw(
        θ,
        gradient,
        steps,
        α=α,
        λ=lambda step: λ_norm * np.sqrt(1 / warm_restarts(step, T_0, T_mult)[1]),
        η=lambda step: cosine(step, T_0, T_mult),
        **adams,
    )


def temporal_average(path, β2):
    """Adam §7.2 (arXiv 1412.6980): θ̄ ← β₂θ̄ + (1−β₂)θ from 0, over 1 − β₂ᵗ, of θ_1, θ_2, …"""
    average = np.zeros_like(path[0])
    for θ in path:
        average = β2 * average + (1 - β2) * θ
    return average / (1 - np.float64(β2) ** len(path))


def weighted_mean(gradients, β):
    """Σ βᵗ⁻ⁱ gᵢ / Σ βᵗ⁻ⁱ over the first axis."""
    weights = np.float64(β) ** np.arange(len(gradients))[::-1]
    return np.tensordot(weights / weights.sum(), np.asarray(gradients, np.float64), axes=1)
