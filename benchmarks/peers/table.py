"""Tables of results: a row for each figure, a column for each peer with its settings."""

from collections.abc import Iterable, Sequence

from benchmarks.peers.kills import LOST
from benchmarks.peers.results import Figure, Result

QUIET_PERCENT = 15
"""A machine is quiet if others use less of its cores."""
_CAUSE_CHARACTERS = 160


def newest(results: Iterable[Result]) -> list[Result]:
    """Return the newest result of each peer and settings, in the order of first appearance."""
    found: dict[tuple[str, str], Result] = {}
    for result in results:
        key = result.peer, result.settings
        if key not in found or found[key].at < result.at:
            found[key] = result
    return list(found.values())


def quiet(result: Result) -> bool:
    """Return whether the machine had nothing else to do when the measurement began."""
    return result.machine.busy_percent < QUIET_PERCENT


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


def markdown(results: Sequence[Result], names: Sequence[str] = ()) -> str:
    """Return a table.

    Args:
        results: One a column.
        names: Of figures, one a row; by default of all.
    """
    heads = [f"{each.peer} {each.version}, {each.settings}" for each in results]
    lines = ["| figure | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for name in names or _names(results):
        cells = []
        for result in results:
            values = [shown(each) for each in result.figures if each.name == name]
            cells.append(values[0] if values else "")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def conditions(results: Sequence[Result]) -> str:
    """Return a line about each result: when and where it was measured, and what failed in it."""
    lines = []
    for result in results:
        machine = result.machine
        lines.append(
            f"- {result.peer} {result.version}, {result.settings}: {result.at[:10]},"
            f" {machine.cores} cores, {machine.memory_gigabytes:g} GiB, Python {machine.python},"
            f" {result.counts} counts; measured at load {machine.load:g}, with"
            f" {machine.busy_percent:g} % of the cores busy with other work."
        )
        lines += [f"    - `{name}`: {_cause(text)}" for name, text in result.failed.items()]
        lines += [
            f"    - {each.name}: {each.note}."
            for each in result.figures
            if each.note and each.name in _WITH_NOTES
        ]
    return "\n".join(lines) + "\n"


def _cause(text: str) -> str:
    """Return the first line of an error, without what would end a line of Markdown."""
    line = text.strip().splitlines()[0].replace("|", "\\|").replace("<", "&lt;")
    return line if len(line) <= _CAUSE_CHARACTERS else f"{line[:_CAUSE_CHARACTERS]} …"


_WITH_NOTES = (LOST, "no-op tasks a second, ten a run")
