def gradient_step(θ, g, α):
    return θ - α * g
