"""The output of commands: JSON for programs, tables and lines for people."""

import os
import sys
from collections.abc import AsyncIterable, Collection, Iterable
from datetime import datetime

import msgspec
from msgspec.structs import replace

from pubsubflow.cli.texts import Grid, GridColumn, Text, plain_lines
from pubsubflow.cli.zone import zone, zone_name
from pubsubflow.model.lazy_import import lazy_module
from pubsubflow.terminal_text import terminal_safe, terminal_safe_json, terminal_safe_line

_terminal = lazy_module("pubsubflow.cli.terminal")

_BROAD = 100
_LEAST = 6
_CUT = 20
_GAP = 2
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


def is_plain() -> bool:
    """Whether stdout is a pipe or a file, for which nothing is coloured or cut."""
    forced = os.environ.get("FORCE_COLOR") or os.environ.get("TTY_COMPATIBLE") == "1"
    return not (forced or sys.stdout.isatty())


def show(*parts: object) -> None:
    """Print for people."""
    if not is_plain():
        _terminal.print_parts(parts)
        return
    for part in parts:
        sys.stdout.writelines(line.rstrip() + "\n" for line in plain_lines(part))
    sys.stdout.flush()


def confirm(question: str) -> bool:
    """Prompt on the terminal; return whether the answer is yes."""
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def warn(text: str) -> None:
    """Print one line on stderr."""
    sys.stderr.write(terminal_safe(text) + "\n")


def show_json(value: object) -> None:
    """Print one value in JSON."""
    sys.stdout.buffer.write(msgspec.json.format(_encode(value), indent=2) + b"\n")
    sys.stdout.flush()


def show_result(value: object, *parts: object, json: bool) -> None:
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
        narrow: How many of them a terminal shows that is too narrow for all; all if left out.
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
        self._columns = columns
        self._narrow = narrow
        self._times = times
        self._made = {
            name: GridColumn(
                name,
                right=name in right,
                wraps=name in elastic,
                overflow="ellipsis" if name in elastic else "fold",
                min_width=min(len(name), _LEAST) if name in elastic else None,
            )
            for name in columns
        }
        self._rows: list[list[str | Text]] = []

    def row(self, *values: str | Text | None) -> None:
        """Add a row, with a value for every column, also for those that are not shown."""
        self._rows.append([*map(_in_line, values)])

    def show(self, *, none: str) -> None:
        """Print the table, or a line if it has no rows."""
        show(self._grid() if self._rows else none)

    def _grid(self) -> Grid:
        shown = self._columns if self._fits() else self._columns[: self._narrow]
        made = [self._made[name] for name in shown]
        zoned = next((number for number, name in enumerate(shown) if name in self._times), None)
        if zoned is not None:
            made[zoned] = replace(made[zoned], title=f"{made[zoned].title} ({zone_name()})")
        grid = Grid(made, headed=True)
        grid.rows += [row[: len(shown)] for row in self._rows]
        return grid

    def _fits(self) -> bool:
        """Whether a terminal is wide enough for all columns, the elastic ones cut to some words."""
        if is_plain():
            return True
        width: int = _terminal.console().width
        if width < _BROAD:
            return False
        needed = 0
        for number, column in enumerate(self._made.values()):
            longest = max(
                len(str(value)) for row in self._rows for value in row[number : number + 1]
            )
            most = _CUT if column.wraps else longest
            needed += max(min(longest, most), len(column.title)) + _GAP
        return needed <= width


def _in_line(value: str | Text | None) -> str | Text:
    return value if isinstance(value, Text) else terminal_safe_line(value or "")


def facts(pairs: Iterable[tuple[str, str | Text | None]]) -> Grid:
    """Return a table of names and values, without the pairs that have no value."""
    made = Grid([GridColumn(style="dim", wraps=False), GridColumn()], headed=False)
    made.rows += [[name, value] for name, value in pairs if value is not None and value != ""]
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
