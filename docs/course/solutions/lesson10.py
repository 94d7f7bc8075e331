import itertools

import numpy as np


def p_value(differences):
    signs = np.array(list(itertools.product([1, -1], repeat=len(differences))))
    sums = signs @ np.array(differences)
    return np.mean(np.abs(sums) >= abs(np.sum(differences)))


def lead_without_schedule(read, stopped):
    """AdamW's lead by seed, with the functions of the lesson."""
    runs = read("50000-256x128-constant-40-fresh")
    adam = stopped(runs, learning_rate=0.00034, weight_decay=0, l2=0, epochs=40)
    adamw = stopped(runs, learning_rate=0.00043, weight_decay=0.027, l2=0, epochs=40)
    return adamw - adam
