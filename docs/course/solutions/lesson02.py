def momentum(b1):
    def step(m, g):
        m = b1 * m + (1 - b1) * g
        return m, m

    return step
