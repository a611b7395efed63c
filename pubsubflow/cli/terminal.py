"""The terminal, by rich: colours, and tables as wide as it is."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text as RichText
from rich.tree import Tree as RichTree

from pubsubflow.terminal_text import terminal_safe

if TYPE_CHECKING:
    from pubsubflow.cli.texts import GridColumn, Text, Tree

_WIDE = 400


class _SafeConsole(Console):
    """A console that sends no control characters but its own."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        # Here, as all that is printed passes, whatever it is nested in.
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(terminal_safe(segment.text), segment.style)


@cache
def console() -> Console:
    """Return the console of stdout: as wide as the terminal, or very wide where it is none."""
    # Dataset URIs and users' texts contain brackets, which rich would read as markup.
    plain = _SafeConsole(highlight=False, markup=False, emoji=False)
    if plain.is_terminal:
        return plain
    return _SafeConsole(highlight=False, markup=False, emoji=False, width=_WIDE)


def print_parts(parts: Iterable[RenderableType]) -> None:
    """Print for people."""
    # Where stdout is a pipe rich pads every line to the full width, so the padding is cut off.
    for part in parts:
        if console().is_terminal:
            console().print(part)
        else:
            sys.stdout.writelines(line.rstrip() + "\n" for line in captured_lines(part))
    sys.stdout.flush()


def captured_lines(part: RenderableType) -> list[str]:
    """Return the lines that printing something would write."""
    with console().capture() as captured:
        console().print(part)
    return captured.get().splitlines()


def make_text(pieces: Iterable[tuple[str, str]]) -> RichText:
    """Return a text of pieces and their styles."""
    return RichText.assemble(*pieces)


def make_table(
    columns: Sequence["GridColumn"], rows: Iterable[Sequence[object]], *, headed: bool
) -> Table:
    """Return a table without lines."""
    table = Table(
        box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0), show_header=headed
    )
    for column in columns:
        table.add_column(
            column.title,
            justify="right" if column.right else "left",
            style=column.style or None,
            no_wrap=not column.wraps,
            overflow=column.overflow,
            min_width=column.min_width,
        )
    for row in rows:
        table.add_row(*map(_entry, row, columns))
    return table


def make_tree(tree: "Tree") -> RichTree:
    """Return a tree of texts."""
    made = RichTree(_label(tree.label), guide_style="dim")
    for branch in tree.branches:
        made.children.append(make_tree(branch))
    return made


def _entry(value: object, column: "GridColumn") -> RichText:
    text = value.__rich__() if hasattr(value, "__rich__") else RichText(str(value))
    if column.overflow == "ellipsis":
        text.no_wrap, text.overflow = True, "ellipsis"
    return text


def _label(label: "str | Text") -> RenderableType:
    return label if isinstance(label, str) else label.__rich__()
