"""Formulas, which are trees of Python's `ast`, as papers write them: as text and in LaTeX.

Names become symbols: a letter, which may have a hat, a bar or a prime (ʹ), with a number and a
suffix below it, as in β1, ĝ and v_max. Other names are words.
"""

import ast
import re
import unicodedata

# How tightly an expression holds together. A quotient may be the last factor of a product but
# not the first: α m / v is α (m / v) just as well as (α m) / v.
CHOICE, SUM, QUOTIENT, PRODUCT, POWER, ATOM = range(6)
HAT, BAR = "\u0302", "\u0304"
SYMBOL = re.compile(
    rf"(?P<letter>[^\W\d_])(?P<marks>[{HAT}{BAR}]*)(?P<prime>ʹ?)(?P<number>\d*)"
    r"(_(?P<suffix>[^\W\d_]+)(?P<suffix_number>\d*))?"
)
SUPERSCRIPTS = str.maketrans("0123456789+−t", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ᵗ")
SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
# Renderers do not agree on what a backslash means within \text.
SIGNS = {sign: f"\\{sign}" for sign in "_#$%&{}"}
SIGNS |= {"\\": r"\backslash ", "^": r"\wedge ", "~": r"\sim "}
OUTSIDE_TEXT = str.maketrans({sign: rf"}}{latex}\text{{" for sign, latex in SIGNS.items()})


class Text:
    """Writes formulas in Unicode, each on one line."""

    minus, at_least, comma = "−", "≥", ", "
    opening, closing = "(", ")"

    def write(self, tree: ast.expr, at_least: int = CHOICE) -> str:
        """Writes a formula, in parentheses if it holds together less tightly than asked for."""
        text, tightness = self._written(tree)
        return text if tightness >= at_least else self.opening + text + self.closing

    def number(self, value: float) -> str:
        """Writes a number with at most ten digits."""
        digits, _, exponent = f"{value:.10g}".replace("-", self.minus).partition("e")
        if not exponent:
            return digits
        power = self._power("10", exponent[0].strip("+") + exponent[1:].lstrip("0"))
        return power if digits == "1" else self._times(digits, power)

    def symbol(self, name: str) -> str:
        """Writes a name."""
        match = SYMBOL.fullmatch(unicodedata.normalize("NFD", name))
        return self._letter(**match.groupdict("")) if match else self.word(name)

    def word(self, text: str) -> str:
        """Writes words."""
        return text

    def _written(self, tree: ast.expr) -> tuple[str, int]:
        """A formula without parentheses around it, and how tightly it holds together."""
        write = self.write
        match tree:
            case ast.Name(name):
                return self.symbol(name), ATOM
            case ast.Constant(int() | float() as value):
                return self.number(value), ATOM
            case ast.UnaryOp(ast.USub(), x):
                return self.minus + write(x, QUOTIENT), SUM
            case ast.BinOp(a, ast.Add(), b):
                return f"{write(a, SUM)} + {write(b, SUM)}", SUM
            case ast.BinOp(a, ast.Sub(), b):
                return f"{write(a, SUM)} {self.minus} {write(b, QUOTIENT)}", SUM
            case ast.BinOp(a, ast.Mult(), b):
                product = self._product(write(a, PRODUCT), write(b, QUOTIENT))
                return product, QUOTIENT if self._written(b)[1] == QUOTIENT else PRODUCT
            case ast.BinOp(a, ast.Div(), b):
                return self._quotient(a, b)
            case ast.BinOp(a, ast.Pow(), b):
                return self._power(write(a, ATOM), write(b)), POWER
            case ast.Compare(a, [sign], [b]):
                relation = self.at_least if isinstance(sign, ast.GtE) else ">"
                return f"{write(a)} {relation} {write(b)}", CHOICE
            case ast.IfExp(condition, a, b):
                return self._choice(write(a), write(condition), write(b)), CHOICE
            case ast.Call(ast.Name("sqrt"), [x]):
                return self._root(x), ATOM
            case ast.Call(ast.Name(name), arguments):
                return self._call(name, ", ".join(map(write, arguments))), ATOM
        raise ValueError(f"there is no notation for {ast.unparse(tree)!r} in a formula")

    def _product(self, a: str, b: str) -> str:
        joined = a.endswith(self.closing) and b.startswith(self.opening)
        return a + b if joined else f"{a} {b}"

    def _times(self, a: str, b: str) -> str:
        return f"{a}·{b}"

    def _quotient(self, a: ast.expr, b: ast.expr) -> tuple[str, int]:
        return f"{self.write(a, PRODUCT)} / {self.write(b, POWER)}", QUOTIENT

    def _power(self, base: str, exponent: str) -> str:
        raised = exponent.replace(" ", "").translate(SUPERSCRIPTS)
        return f"{base}^({exponent})" if set(raised) & set(exponent) else base + raised

    def _root(self, x: ast.expr) -> str:
        return "√" + self.write(x, ATOM)

    def _choice(self, a: str, condition: str, b: str) -> str:
        return f"{a} if {condition}, otherwise {b}"

    def _call(self, name: str, given: str) -> str:
        signs = {"abs": f"|{given}|", "indicator": f"1[{given}]"}
        return signs.get(name, f"{self.symbol(name)}({given})")

    def _letter(self, letter, marks, prime, number, suffix, suffix_number) -> str:
        marked = unicodedata.normalize("NFC", letter + marks) + "′" * len(prime)
        below = "∞" if suffix == "inf" else suffix and f"_{suffix}"
        return marked + number.translate(SUBSCRIPTS) + below + suffix_number.translate(SUBSCRIPTS)


class LaTeX(Text):
    """Writes formulas in LaTeX, for mathematical mode."""

    minus, at_least, comma = "-", r"\ge", r",\ "
    opening, closing = r"\left(", r"\right)"

    def word(self, text: str) -> str:
        """Writes words."""
        return rf"\text{{{text.translate(OUTSIDE_TEXT)}}}"

    def _times(self, a: str, b: str) -> str:
        return rf"{a} \cdot {b}"

    def _quotient(self, a: ast.expr, b: ast.expr) -> tuple[str, int]:
        return rf"\frac{{{self.write(a)}}}{{{self.write(b)}}}", PRODUCT

    def _power(self, base: str, exponent: str) -> str:
        return f"{base}^{{{exponent}}}"

    def _root(self, x: ast.expr) -> str:
        return rf"\sqrt{{{self.write(x)}}}"

    def _choice(self, a: str, condition: str, b: str) -> str:
        cases = rf"{a} & \text{{if }} {condition} \\ {b} & \text{{otherwise}}"
        return rf"\begin{{cases}}{cases}\end{{cases}}"

    def _call(self, name: str, given: str) -> str:
        signs = {
            "abs": rf"\left|{given}\right|",
            "indicator": rf"\mathbb{{1}}[{given}]",
            "max": rf"\max\left({given}\right)",
        }
        return signs.get(name, rf"{self.symbol(name)}\left({given}\right)")

    def _letter(self, letter, marks, prime, number, suffix, suffix_number) -> str:
        if letter > "z":  # a Greek one
            name = unicodedata.name(letter).split()[-1].lower()
            letter = "\\" + {"lamda": "lambda", "epsilon": "varepsilon"}.get(name, name)
        for mark in marks:
            letter = rf"\{'hat' if mark == HAT else 'bar'}{{{letter}}}"
        known = {"": "", "inf": r"\infty", "max": r"\max"}
        below = number + known.get(suffix, rf"\text{{{suffix}}}") + suffix_number
        return letter + "'" * len(prime) + (f"_{{{below}}}" if below else "")
