"""Table of results: a column for each peer and its settings, the newest result of each."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.peers.results import Figure, Result

_BEGIN, _END = "<!-- peers -->", "<!-- /peers -->"


def newest(results: Iterable[Result]) -> list[Result]:
    """Return the newest result of each peer and settings, in the order of first appearance."""
    found: dict[tuple[str, str], Result] = {}
    for result in results:
        key = result.peer, result.settings
        if key not in found or found[key].at < result.at:
            found[key] = result
    return list(found.values())


def shown(figure: Figure) -> str:
    """Return a value with its unit, times in the unit that reads best."""
    value, unit = figure.value, figure.unit
    if unit == "ms" and value >= 1000:
        value, unit = value / 1000, "s"
    if unit == "s" and value < 0.1:
        value, unit = value * 1000, "ms"
    text = f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
    return f"{text} {unit}".rstrip()


def _names(results: Sequence[Result]) -> list[str]:
    """Return the names of all figures, in the order in which they were measured."""
    found: list[str] = []
    for result in results:
        place = 0
        for figure in result.figures:
            if figure.name in found:
                place = found.index(figure.name) + 1
            else:
                found.insert(place, figure.name)
                place += 1
    return found


def markdown(results: Sequence[Result]) -> str:
    """Return the table, and a line about each column."""
    heads = [f"{each.peer} {each.version}, {each.settings}" for each in results]
    lines = ["| figure | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for name in _names(results):
        cells = []
        for result in results:
            values = [shown(each) for each in result.figures if each.name == name]
            cells.append(values[0] if values else "")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines.append("")
    for head, result in zip(heads, results, strict=True):
        machine = result.machine
        failed = "".join(f"; `{name}` failed" for name in result.failed)
        lines.append(
            f"- {head}: {result.at[:10]}, {machine.cores} cores, {machine.memory_gigabytes:g} GiB,"
            f" Python {machine.python}, load {machine.load:g} at the beginning,"
            f" {result.counts} counts{failed}."
        )
    return "\n".join(lines) + "\n"


def put_into(page: Path, table: str) -> None:
    """Replace what a page has between its marks by a table.

    Raises:
        ValueError: The page has no such marks.
    """
    text = page.read_text("utf-8")
    head, begin, rest = text.partition(_BEGIN)
    _, end, tail = rest.partition(_END)
    if not (begin and end):
        raise ValueError(f"{page}: put {_BEGIN} and {_END} where the table belongs")
    page.write_text(f"{head}{_BEGIN}\n{table}{_END}{tail}", "utf-8")
