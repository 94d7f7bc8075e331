"""Which symbol stands for what: each for one thing, and for equal things the same one."""

import itertools
import re
from collections.abc import Hashable, Iterator

# How the arguments of the library's constructors are written. Others keep their names.
SYMBOLS = {
    "b": "β",
    "b1": "β1",
    "b2": "β2",
    "eps": "ε",
    "eps_root": "ε_root",
    "learning_rate": "α",
    "weight_decay": "λ",
    "decay_per_step": "λ",
    "l2": "λʹ",
}


class Symbols(dict[str, Hashable]):
    """The symbols in use, and what each stands for: keys, equal where the meaning is."""

    def of(self, wanted: str, meaning: Hashable) -> str:
        """The symbol for a meaning: the wanted one or, if that has another, the next.

        Without a number, as the β of a bias correction is wanted, any number will do: it is the
        last β with that meaning.
        """
        same = re.compile(re.escape(wanted) + r"_?\d*")
        known = (s for s in reversed(self) if same.fullmatch(s) and self[s] == meaning)
        free = (s for s in _series(wanted) if self.get(s, meaning) == meaning)
        symbol = next(itertools.chain(known, free))
        self[symbol] = meaning
        return symbol

    def new(self, wanted: str) -> str:
        """A symbol for something that equals nothing else."""
        return self.of(wanted, object())


def _series(wanted: str) -> Iterator[str]:
    """α, η, α2, α3, …; β1, β2, …; u, u2, …; and of a word, mask, mask_2, …."""
    yield wanted
    if wanted == "α":
        yield "η"  # AdamW's schedule, which multiplies α
    stem = wanted.rstrip("0123456789")
    first = int(wanted[len(stem) :] or 1) + 1
    joint = "_" if len(stem) > 1 and stem[:2].isascii() and stem[:2].isalpha() else ""
    yield from (f"{stem}{joint}{n}" for n in itertools.count(first))
