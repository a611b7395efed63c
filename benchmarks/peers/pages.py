"""Pages that show results: their tables, between marks, from the files of `measured/`."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.peers.adapters import PEERS
from benchmarks.peers.kills import LOST
from benchmarks.peers.results import Result, read, save
from benchmarks.peers.table import conditions, markdown, newest, quiet

MEASURED = Path(__file__).parent / "measured"
ROOT = Path(__file__).parents[2]
_BEGIN, _END = "<!-- peers -->", "<!-- /peers -->"
_NONE = "Nothing has been measured yet: `python -m benchmarks.peers`.\n"
_BUSY = (
    "> Measured on a machine that was busy with other work: these figures show that each workload"
    " ends, not how\n> fast a peer is.\n\n"
)
_LATER = (
    "The table of a quiet machine is not there yet; [side by side](docs/peers.md) shows what there"
    " is.\n"
)
_SUMMARY = (
    "event → first line",
    "task end → next workflow's first line",
    "chain of ten workflows",
    "event → ten workflows, all ended",
    "no-op tasks a second, ten a run",
    "events acknowledged a second, clients: 8",
    LOST,
    "runs doubled",
    "kill -9 → first line of a task",
    "kill -9 → all events of before worked off",
    "start → ready",
    "idle, share of a core",
    "idle, memory (PSS)",
)


def in_order(results: Iterable[Result]) -> list[Result]:
    """Return the newest results, by peer, default settings first."""
    order = list(PEERS)
    return sorted(
        newest(results),
        key=lambda each: (
            order.index(each.peer),
            list(PEERS[each.peer].settings).index(each.settings),
        ),
    )


def whole(results: Sequence[Result]) -> str:
    """Return the tables of the page: of default settings, of the others, and the conditions."""
    if not results:
        return _NONE
    ours = [each for each in results if each.peer == "pubsubflow"]
    others = [each for each in results if each.peer != "pubsubflow"]
    text = "" if all(map(quiet, results)) else _BUSY
    default = [each for each in others if each.settings == "default"]
    tuned = [each for each in others if each.settings != "default"]
    if default or not tuned:
        text += f"**Default settings**\n\n{markdown([*ours, *default])}\n"
    if tuned:
        text += f"**Tuned settings**\n\n{markdown([*ours, *tuned])}\n"
    return text + conditions(results)


def summary(results: Sequence[Result]) -> str:
    """Return the table of the README: ours as it is installed, and the best settings of the others.

    What a busy machine has measured does not get there.
    """
    last = {each.peer: each for each in results}
    last |= {
        each.peer: each
        for each in results
        if each.peer == "pubsubflow" and each.settings == "default"
    }
    chosen = [last[name] for name in PEERS if name in last]
    if not chosen or not all(map(quiet, chosen)):
        return _LATER
    present = {each.name for result in chosen for each in result.figures}
    return markdown(chosen, [name for name in _SUMMARY if name in present])


PAGES = {ROOT / "docs" / "peers.md": whole, ROOT / "README.md": summary}
"""Page → what stands between its marks."""


def measured() -> list[Result]:
    """Return the results that the pages show."""
    return in_order(read(path) for path in sorted(MEASURED.glob("*.json")))


def publish(results: Iterable[Result]) -> None:
    """Keep results in `measured/` in place of earlier ones, and write them into the pages."""
    for result in newest(results):
        save(result, MEASURED / f"{result.peer}-{result.settings}.json")
    for page, table in PAGES.items():
        put_into(page, table(measured()))


def between(page: Path) -> str:
    """Return what a page has between its marks.

    Raises:
        ValueError: It has no such marks.
    """
    return _parts(page)[1]


def put_into(page: Path, table: str) -> None:
    """Replace what a page has between its marks by a table.

    Raises:
        ValueError: The page has no such marks.
    """
    head, _, tail = _parts(page)
    page.write_text(f"{head}{_BEGIN}\n{table}{_END}{tail}", "utf-8")


def _parts(page: Path) -> tuple[str, str, str]:
    head, begin, rest = page.read_text("utf-8").partition(_BEGIN + "\n")
    middle, end, tail = rest.partition(_END)
    if not (begin and end):
        raise ValueError(f"{page}: put {_BEGIN} and {_END} where the table belongs")
    return head, middle, tail
