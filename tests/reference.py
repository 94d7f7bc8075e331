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


def nadam(θ, gradient, steps, *, α, β1=0.9, β2=0.999, ε=1e-8):
    """NAdam, Algorithm 2 of Dozat (2016) with a constant μ = β₁."""
    m, n = np.zeros_like(θ), np.zeros_like(np.abs(θ))
    for t in range(1, steps + 1):
        g = gradient(θ, t)
        m = β1 * m + (1 - β1) * g
        n = β2 * n + (1 - β2) * np.abs(g) ** 2
        m_hat = β1 * m / (1 - β1 ** (t + 1)) + (1 - β1) * g / (1 - β1**t)
        n_hat = n / (1 - β2**t)
        θ = θ - at(α, t) * m_hat / (np.sqrt(n_hat) + ε)
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


def weighted_mean(gradients, β):
    """Σ βᵗ⁻ⁱ gᵢ / Σ βᵗ⁻ⁱ over the first axis."""
    weights = np.float64(β) ** np.arange(len(gradients))[::-1]
    return np.tensordot(weights / weights.sum(), np.asarray(gradients, np.float64), axes=1)
