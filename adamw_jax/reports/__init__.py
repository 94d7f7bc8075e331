"""What an optimizer will do to a model, told before it is trained.

    decay       `decay_report`: what steps take away, towards what, and which rule decided;
                `measured_decay` and `probes` measure it, `reasons` names the rules
    rotation    `rotation_report`: which arrays have no scale (`invariance`), and how fast decay
                turns them (`responses`)
    scaling     `scaling_report`: what published rules make of a tuned run at another size
    memory      `memory_report`: what a state takes

A report is data and prints as a table. The reports read descriptions or try optimizers out;
nothing that makes an optimizer knows them.
"""
