"""Tables as text."""

from collections.abc import Iterable


def printed(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A table as text, its columns aligned."""
    table = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(map(str.ljust, cells, widths)).rstrip() for cells in table]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
