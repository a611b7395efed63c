"""The output of commands: JSON for programs, tables and lines for people."""

import sys
from collections.abc import AsyncIterable, Collection, Iterable, Iterator
from datetime import datetime
from functools import cache

import msgspec
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from pubsubflow.cli.zone import zone, zone_name
from pubsubflow.terminal_text import terminal_safe, terminal_safe_json, terminal_safe_line

_WIDE = 400
_BROAD = 100
_LEAST = 6
_MINUTE, _HOUR = 60, 3600
_STYLES = {
    "success": "green",
    "failed": "bold red",
    "upstream_failed": "red",
    "running": "cyan",
    "ready": "blue",
    "queued": "blue",
    "deferred": "magenta",
    "up_for_retry": "yellow",
    "cancelled": "yellow",
    "skipped": "dim",
    "none": "dim",
}


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
    """Return the console of stdout: as wide as the terminal, or very wide in a pipe."""
    # Dataset URIs and users' texts contain brackets, which rich would read as markup.
    plain = _SafeConsole(highlight=False, markup=False, emoji=False)
    if plain.is_terminal:
        return plain
    return _SafeConsole(highlight=False, markup=False, emoji=False, width=_WIDE)


def show(*parts: RenderableType) -> None:
    """Print for people."""
    # In a pipe rich pads every line to the full width, so the padding is cut off again.
    if console().is_terminal:
        for part in parts:
            console().print(part)
        return
    with console().capture() as captured:
        for part in parts:
            console().print(part)
    for line in captured.get().splitlines():
        sys.stdout.write(line.rstrip() + "\n")
    sys.stdout.flush()


def warn(text: str) -> None:
    """Print one line on stderr."""
    sys.stderr.write(terminal_safe(text) + "\n")


def show_json(value: object) -> None:
    """Print one value in JSON."""
    sys.stdout.buffer.write(msgspec.json.format(_encode(value), indent=2) + b"\n")
    sys.stdout.flush()


def show_result(value: object, *parts: RenderableType, json: bool) -> None:
    """Print a value in JSON, or the parts that present it to people."""
    if json:
        show_json(value)
    else:
        show(*parts)


def show_list(items: Iterable[object]) -> None:
    """Print a list in JSON, one item a line."""
    lines = b",\n".join(map(_encode, items))
    sys.stdout.buffer.write(b"[\n" + lines + b"\n]\n" if lines else b"[]\n")
    sys.stdout.flush()


async def show_items(items: AsyncIterable[object]) -> None:
    """Print a list in JSON, each item as soon as it is received."""
    write = sys.stdout.buffer.write
    # The opening bracket waits for the first item: a request that fails leaves stdout empty.
    between = b"[\n"
    async for item in items:
        write(between + _encode(item))
        between = b",\n"
    write(b"\n]\n" if between == b",\n" else b"[]\n")
    sys.stdout.flush()


def show_line(value: object) -> None:
    """Print one value in JSON, in one line."""
    sys.stdout.buffer.write(_encode(value) + b"\n")
    sys.stdout.flush()


def _encode(value: object) -> bytes:
    return terminal_safe_json(msgspec.json.encode(value))


class Listing:
    """A table without lines, one row a line.

    Args:
        columns: Headings, the most important first.
        narrow: How many of them a narrow terminal shows; all if left out.
        right: Columns that hold numbers, aligned to the right.
        elastic: Columns that are cut on a narrow terminal; the others never are.
        times: Columns that hold times: the first of them names the zone.
    """

    def __init__(
        self,
        *columns: str,
        narrow: int | None = None,
        right: Collection[str] = (),
        elastic: Collection[str] = (),
        times: Collection[str] = (),
    ) -> None:
        self._shown = columns if console().width >= _BROAD else columns[:narrow]
        self._elastic = elastic
        zoned = next((name for name in self._shown if name in times), None)
        self._table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
        for name in self._shown:
            self._table.add_column(
                f"{name} ({zone_name()})" if name == zoned else name,
                justify="right" if name in right else "left",
                no_wrap=name not in elastic,
                overflow="ellipsis" if name in elastic else "fold",
                min_width=min(len(name), _LEAST) if name in elastic else None,
            )

    def row(self, *values: str | Text | None) -> None:
        """Add a row, with a value for every column, also for those that are not shown."""
        shown = zip(self._shown, values, strict=False)
        self._table.add_row(*(self._text(name, value) for name, value in shown))

    def show(self, *, none: str) -> None:
        """Print the table, or a line if it has no rows."""
        show(self._table if self._table.row_count else none)

    def _text(self, name: str, value: str | Text | None) -> Text:
        text = value if isinstance(value, Text) else Text(terminal_safe_line(value or ""))
        if name in self._elastic:
            text.no_wrap, text.overflow = True, "ellipsis"
        return text


def facts(pairs: Iterable[tuple[str, RenderableType | None]]) -> Table:
    """Return a table of names and values, without the pairs that have no value."""
    made = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    made.add_column(style="dim", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in pairs:
        if value is not None and value != "":
            made.add_row(name, value)
    return made


def state(name: str) -> Text:
    """Return a state in its colour."""
    return Text(name, style=_STYLES.get(name, ""))


def moment(time: datetime | None) -> str | None:
    """Format a moment to the second, with its zone."""
    return None if time is None else time.astimezone(zone()).strftime("%Y-%m-%d %H:%M:%S %Z")


def brief(time: datetime | None) -> str | None:
    """Format a moment briefly: today's without the day, others without seconds.

    The heading names the zone.
    """
    if time is None:
        return None
    local = time.astimezone(zone())
    today = local.date() == datetime.now(zone()).date()
    return local.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M")


def duration(start: datetime | None, end: datetime | None) -> str:
    """Format how long something took; empty while it has not ended."""
    if start is None or end is None:
        return ""
    seconds = max((end - start).total_seconds(), 0.0)
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    if seconds < _HOUR:
        return f"{seconds // _MINUTE:.0f} min {seconds % _MINUTE:.0f} s"
    return f"{seconds // _HOUR:.0f} h {seconds % _HOUR // _MINUTE:.0f} min"


def compact(value: object) -> str:
    """Format a JSON value in one line; empty for an empty value."""
    return msgspec.json.encode(value).decode() if value else ""
