"""Rules that pick parameters by name, whatever their shape.

The usual rule, that whatever has more than one axis decays, fails where layers are stacked
by a scan or a vmap: their biases have two axes, and so do those of attention heads. The
rules here look at the path of a parameter and, where modules are themselves trees (as in
Equinox), at the class of its module. Masks (`decay_except`, `decay_only`) and groups (`partition`)
are made of them.
"""

import dataclasses
import fnmatch
import reprlib
from collections.abc import Callable, Sequence

from adamw_jax.core import Description, Readable, describe
from adamw_jax.parameters import KINDS, Parameter


@dataclasses.dataclass(frozen=True, repr=False)
class Rule(Readable):
    """A condition that a parameter matches or not, as `path` and `kind` make it.

    Attributes:
      constructor: which of these two was called.
      argument: what it was called with.
    """

    constructor: Callable[[str], "Rule"]
    argument: str

    @property
    def description(self) -> Description:
        """The call that made the rule, as data."""
        return describe(self.constructor, self.argument)

    def matches(self, parameter: Parameter) -> bool:
        """Whether a parameter matches."""
        if self.constructor is path:
            return fnmatch.fnmatchcase(parameter.path, self.argument)
        return parameter.kind == self.argument


def path(pattern: str) -> Rule:
    """A rule for parameters whose path, the names from the root joined by slashes, matches.

    Args:
      pattern: as in a shell: `*` stands for any characters, slashes included, `?` for one
        character and `[ab]` for a choice. Upper and lower case are distinguished. For example
        `*/head/*`, `*kernel` and `layers/[01]/*`.

    Raises:
      ValueError: the pattern is not a string.
    """
    if not isinstance(pattern, str):
        raise ValueError(f"path takes a pattern such as '*/head/*', got {pattern!r}")
    return Rule(path, pattern)


def kind(name: str) -> Rule:
    """A rule for all parameters of one kind, which follows from their names.

    Args:
      name: one of

        - "bias": bias, biases, …_bias, bias_…, b, b1, beta, offset;
        - "scale": scale, …_scale, gamma, g, …norm, and the weight of a module named
          …norm, ln… or bn… or of a class …Norm;
        - "embedding": embed, embedding, …_emb, …_embedding, cls, …_token, wte, wpe, and
          the weight of a module with such a name or of a class …Embedding;
        - "weight": kernel, weight, w, …_kernel, …_weight, lora_a, …;
        - "other": every other name.

    Raises:
      ValueError: there is no such kind; or, where the rule is used, a parameter has no
        name that could tell its kind.
    """
    if name not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(map(repr, KINDS))}, got {name!r}")
    return Rule(kind, name)


def first_matches(rules: Sequence[Rule], found: list[Parameter]) -> list[Rule | None]:
    """The first rule that matches each parameter; None where none does.

    Raises:
      ValueError: a rule needs the kind of a parameter that has no name.
    """
    return [next((rule for rule in rules if _asked(rule, p)), None) for p in found]


def _asked(rule: Rule, parameter: Parameter) -> bool:
    if rule.constructor is kind and parameter.kind is None and parameter.is_there:
        raise ValueError(
            f"the parameter at {parameter.path or 'the root'} has no name that could tell "
            "its kind: put a rule by path before those by kind, or name the parameter"
        )
    return rule.matches(parameter)


def as_rule(rule: Rule | str) -> Rule:
    """A rule as it is, or for a string the rule `path` with that pattern.

    Raises:
      ValueError: the argument is neither.
    """
    if isinstance(rule, str):
        return path(rule)
    if isinstance(rule, Rule):
        return rule
    raise ValueError(
        "a rule is a path pattern such as '*/head/*', or path(…) or kind(…), each an argument "
        f"of its own; got {reprlib.repr(rule)}"
    )
