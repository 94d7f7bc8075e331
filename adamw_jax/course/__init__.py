"""Checks for the exercises of the course in docs/course/.

    from adamw_jax.course import check

    check("momentum", my_momentum)

A solution is compared with the library's own piece on short sequences of gradients. Where it
differs, the verdict shows the shortest of them and, if the same mistake is known, what it is.
`pieces`, `compositions` and `runs` have the exercises, `trials` runs a solution, `complaints` says
why one cannot be run, and `mistakes` holds solutions that are wrong on purpose.
"""

from adamw_jax.course.check import Verdict, check

__all__ = ["Verdict", "check"]
