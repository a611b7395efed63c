"""Workloads of the suite, the same for each peer; a workload's figures have the same names."""

import time
from collections.abc import Callable, Sequence

from benchmarks.peers import kills
from benchmarks.peers.counts import Counts
from benchmarks.peers.marks import Mark
from benchmarks.peers.peer import Peer
from benchmarks.peers.processes import cpu_seconds, memory_megabytes
from benchmarks.peers.results import Figure
from benchmarks.peers.statistics import digits, median_figure

_BETWEEN_SECONDS = (0.3, 0.47, 0.64, 0.81)
"""Pauses between rounds, of different lengths: a peer that polls must not be in step with them."""
_CLIENTS = 8


def first_moment(marks: Sequence[Mark], label: str, phase: str) -> float:
    """Return the moment of the first mark of a label and phase."""
    return min(each.moment for each in marks if (each.label, each.phase) == (label, phase))


def _rounds(count: int, measure: Callable[[str], float], counts: Counts) -> list[float]:
    """Measure so many times, with pauses, after one that does not count; fewer of what is slow."""
    values: list[float] = []
    until = time.monotonic() + counts.workload_seconds
    while len(values) < 2 or (len(values) <= count and time.monotonic() < until):
        number = len(values)
        values.append(measure(f"{time.time():.3f}-{number}"))
        time.sleep(_BETWEEN_SECONDS[number % len(_BETWEEN_SECONDS)])
    return values[1:]


def starts(peer: Peer, counts: Counts) -> list[Figure]:
    """Measure from a start until the peer is ready, and until a task begins; it has run before."""
    ready, begun = [], []
    for number in range(counts.starts):
        peer.stop()
        peer.site.marks.clear()
        started = time.time()
        ready.append(peer.start())
        peer.send("one", [f"start-{started:.3f}-{number}"])
        marks = peer.site.marks.wait("one", "start", 1, counts.patience_seconds)
        begun.append(first_moment(marks, "one", "start") - started)
    return [
        median_figure("start → ready", ready, "s"),
        median_figure("start → first line of a first event's task", begun, "s"),
    ]


def idle(peer: Peer, counts: Counts) -> list[Figure]:
    """Measure CPU and memory without work, of all processes, the database's too."""
    time.sleep(counts.idle_seconds / 4)
    before, started = cpu_seconds(peer.site.processes()), time.perf_counter()
    time.sleep(counts.idle_seconds)
    processes = peer.site.processes()
    share = (cpu_seconds(processes) - before) / (time.perf_counter() - started)
    return [
        Figure("idle, share of a core", digits(100 * share), "%"),
        Figure("idle, memory (PSS)", memory_megabytes(processes), "MB"),
    ]


def _send_one(
    peer: Peer, workload: str, key: str, ends: int, counts: Counts
) -> tuple[float, list[Mark]]:
    """Send an event; return when, and the marks once so many tasks have ended."""
    peer.site.marks.clear()
    sent = time.time()
    peer.send(workload, [key])
    return sent, peer.site.marks.wait(workload, "end", ends, counts.patience_seconds)


def event(peer: Peer, counts: Counts) -> list[Figure]:
    """Measure from an event outside to the first line of a task."""

    def measure(key: str) -> float:
        sent, marks = _send_one(peer, "one", key, 1, counts)
        return 1000 * (first_moment(marks, "one", "start") - sent)

    return [median_figure("event → first line", _rounds(counts.rounds, measure, counts), "ms")]


def hop(peer: Peer, counts: Counts) -> list[Figure]:
    """Measure from the end of a workflow's task to the first line of the workflow after it."""

    def measure(key: str) -> float:
        _, marks = _send_one(peer, "pair", key, 2, counts)
        ended = first_moment(marks, "pair.up", "end")
        return 1000 * (first_moment(marks, "pair.down", "start") - ended)

    name = "task end → next workflow's first line"
    return [median_figure(name, _rounds(counts.rounds, measure, counts), "ms")]


def chain(peer: Peer, counts: Counts) -> list[Figure]:
    """Measure ten workflows, each started by the one before: from first to last line."""

    def measure(key: str) -> float:
        _, marks = _send_one(peer, "chain", key, 10, counts)
        return 1000 * (marks[-1].moment - marks[0].moment)

    return [median_figure("chain of ten workflows", _rounds(counts.chains, measure, counts), "ms")]


def fan(peer: Peer, counts: Counts) -> list[Figure]:
    """Measure an event that starts ten workflows: until the task of the last one has ended."""

    def measure(key: str) -> float:
        sent, marks = _send_one(peer, "fan", key, 10, counts)
        return 1000 * (marks[-1].moment - sent)

    name = "event → ten workflows, all ended"
    return [median_figure(name, _rounds(counts.chains, measure, counts), "ms")]


def tasks(peer: Peer, counts: Counts) -> list[Figure]:
    """Measure tasks a second: workflows of ten that are asked for at once."""
    count, cut = 10 * counts.runs, False

    def measure(key: str) -> float:
        nonlocal cut
        peer.site.marks.clear()
        sent = time.time()
        peer.send("ten", [f"{key}-{number}" for number in range(counts.runs)])
        marks, complete = peer.site.marks.collect(
            lambda found: _ended(found, key) >= count, counts.patience_seconds
        )
        if not (ended := _ended(marks, key)):
            raise TimeoutError(f"none of {count} tasks after {counts.patience_seconds:g} s")
        cut = cut or not complete
        return ended / (marks[-1].moment - sent)

    rates = _rounds(counts.bursts, measure, counts)
    note = f"{count} tasks at once"
    if cut:
        note += f", not all of which had ended after {counts.patience_seconds:g} s"
    return [median_figure("no-op tasks a second, ten a run", rates, "1/s", "more", note)]


def _ended(marks: Sequence[Mark], key: str) -> int:
    """Return how many tasks have ended of events whose keys begin so."""
    return sum(each.phase == "end" and each.key.startswith(key) for each in marks)


def posts(peer: Peer, counts: Counts) -> list[Figure]:
    """Measure how many events are acknowledged a second, from one client and from eight."""
    found = []
    for clients in (1, _CLIENTS):
        peer.post(clients, clients)
        rate = peer.post(counts.posts, clients)
        name = f"events acknowledged a second, clients: {clients}"
        found.append(Figure(name, digits(rate), "1/s", "more"))
    return found


WORKLOADS: dict[str, Callable[[Peer, Counts], list[Figure]]] = {
    "start": starts,
    "idle": idle,
    "event": event,
    "hop": hop,
    "posts": posts,
    "kill": kills.kill,
    "chain": chain,
    "fan": fan,
    "tasks": tasks,
}
"""In the order in which they are measured: what takes long, or may leave work behind, comes last.
The peer runs before each, and after."""
