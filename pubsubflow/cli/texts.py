"""Texts, tables and trees that commands print: plain in a pipe, by rich on a terminal.

In a pipe nothing is coloured, cut or wrapped, so rich is left out: to import it takes longer than
most commands.
"""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

from msgspec import Struct

from pubsubflow.model.lazy_import import lazy_module
from pubsubflow.terminal_text import terminal_safe

_terminal = lazy_module("pubsubflow.cli.terminal")
_GAP = "  "


class Text:
    """A text of pieces, each in a style.

    Args:
        text: The first piece.
        style: Its style, as rich names it.
    """

    def __init__(self, text: str = "", style: str = "") -> None:
        self.pieces = [(text, style)] if text else []

    @classmethod
    def assemble(cls, *parts: "str | Text | tuple[str, str]") -> "Text":
        """Return the text of several parts."""
        made = cls()
        for part in parts:
            if isinstance(part, Text):
                made.pieces += part.pieces
            elif isinstance(part, tuple):
                made.append(*part)
            else:
                made.append(part)
        return made

    def append(self, text: str, style: str = "") -> None:
        """Add a piece at the end."""
        if text:
            self.pieces.append((text, style))

    def __str__(self) -> str:
        return "".join(text for text, _ in self.pieces)

    def __rich__(self) -> Any:
        """Return it for a terminal."""
        return _terminal.make_text(self.pieces)


class GridColumn(Struct, frozen=True):
    """A column of a table.

    Attributes:
        title: Its heading.
        right: Whether it holds numbers, aligned to the right.
        style: Style of its texts.
        wraps: Whether a narrow terminal may break its texts.
        overflow: What a terminal does with words that are too long.
        min_width: Characters that a terminal leaves it.
    """

    title: str = ""
    right: bool = False
    style: str = ""
    wraps: bool = True
    overflow: Literal["fold", "ellipsis"] = "fold"
    min_width: int | None = None


class Grid:
    """A table without lines.

    Args:
        columns: Its columns.
        headed: Whether it shows their headings.
    """

    def __init__(self, columns: Sequence[GridColumn], *, headed: bool) -> None:
        self.columns = columns
        self.headed = headed
        self.rows: list[Sequence[object]] = []

    def plain_lines(self) -> Iterator[str]:
        """Yield its lines for a pipe."""
        rows = [[_lines(each) for each in row] for row in self.rows]
        if self.headed:
            rows.insert(0, [[column.title] for column in self.columns])
        widths = [
            max((_width(line) for row in rows for line in row[number]), default=0)
            for number in range(len(self.columns))
        ]
        for row in rows:
            for number in range(max(map(len, row), default=0)):
                parts = (lines[number] if number < len(lines) else "" for lines in row)
                placed = map(_placed, parts, widths, self.columns)
                yield _GAP.join(placed)

    def __rich__(self) -> Any:
        """Return it for a terminal."""
        return _terminal.make_table(self.columns, self.rows, headed=self.headed)


class Tree:
    """A tree of texts.

    Args:
        label: The text at its root.
    """

    def __init__(self, label: str | Text) -> None:
        self.label = label
        self.branches: list[Tree] = []

    def add(self, label: "str | Text | Tree") -> "Tree":
        """Add a branch, and return it."""
        branch = label if isinstance(label, Tree) else Tree(label)
        self.branches.append(branch)
        return branch

    def plain_lines(self) -> Iterator[str]:
        """Yield its lines for a pipe."""
        yield from _lines(self.label)
        for branch in self.branches:
            last = branch is self.branches[-1]
            first, further = ("└── ", "    ") if last else ("├── ", "│   ")
            for number, line in enumerate(branch.plain_lines()):
                yield (further if number else first) + line

    def __rich__(self) -> Any:
        """Return it for a terminal."""
        return _terminal.make_tree(self)


def plain_lines(part: object) -> Iterable[str]:
    """Return the lines of what is printed, for a pipe."""
    if isinstance(part, Grid | Tree):
        return part.plain_lines()
    if isinstance(part, str | Text):
        return _lines(part)
    lines: list[str] = _terminal.captured_lines(part)
    return lines


def _lines(value: object) -> list[str]:
    return terminal_safe(str(value)).split("\n")


def _width(text: str) -> int:
    """Return how many columns a text takes: two a character of East Asia, none an accent."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(each) in "WF" for each in text)
    return len(text) + wide - sum(unicodedata.combining(each) > 0 for each in text)


def _placed(text: str, width: int, column: GridColumn) -> str:
    padding = " " * (width - _width(text))
    return padding + text if column.right else text + padding
