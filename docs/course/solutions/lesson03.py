def second_moment(b2):
    def step(v, g):
        v = b2 * v + (1 - b2) * g**2
        return v, v

    return step
