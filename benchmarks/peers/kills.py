"""Kills: a peer gets events all the time, dies by signal 9 in the middle, and is started again."""

import threading
import time
from collections.abc import Callable, Iterable

from benchmarks.peers.counts import Counts
from benchmarks.peers.marks import Mark
from benchmarks.peers.peer import Peer
from benchmarks.peers.results import Figure
from benchmarks.peers.statistics import Outcome, median_figure, outcome

LOST = "events lost, or not worked off in time"
_AGAIN_SECONDS = 0.1


class Sender(threading.Thread):
    """Sends an event for each key at a constant rate; one that fails is sent until acknowledged.

    The last one waits for the kill, which may take longer than all others: something has to show
    that the peer works again.

    Args:
        peer: Gets the events.
        keys: Of the events.
        rate: Events a second, while the peer is there.

    Attributes:
        acknowledged: Key → when the peer said that it has the event.
        refused: Why the last try failed that did.
    """

    def __init__(self, peer: Peer, keys: list[str], rate: float) -> None:
        super().__init__(daemon=True)
        self._peer = peer
        self._keys = keys
        self._pause_seconds = 1 / rate
        self._stopped = threading.Event()
        self._killed = threading.Event()
        self.acknowledged: dict[str, float] = {}
        self.refused = ""

    def run(self) -> None:
        """Send all."""
        *others, last = self._keys
        for key in others:
            due = time.monotonic() + self._pause_seconds
            self._send(key)
            if self._stopped.wait(max(0.0, due - time.monotonic())):
                return
        self._killed.wait()
        self._send(last)

    def _send(self, key: str) -> None:
        while not self._stopped.is_set():
            try:
                self._peer.send("slow", [key])
            except OSError as error:
                self.refused = str(error)
                self._stopped.wait(_AGAIN_SECONDS)
            else:
                self.acknowledged[key] = time.time()
                return

    def note_kill(self) -> None:
        """Note that the peer has been killed."""
        self._killed.set()

    def stop(self) -> None:
        """End it, even if events are left."""
        self._stopped.set()
        self._killed.set()
        self.join()


def _wait(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)


def _once(peer: Peer, counts: Counts, number: int) -> Outcome:
    peer.site.marks.clear()
    keys = [f"kill-{time.time():.3f}-{number}-{each}" for each in range(counts.kill_events)]
    sender = Sender(peer, keys, counts.kill_rate)
    sender.start()
    try:
        _wait(lambda: len(sender.acknowledged) >= len(keys) // 2, counts.patience_seconds)
        peer.kill()
        killed = time.time()
        sender.note_kill()
        peer.start()
        sender.join(counts.patience_seconds)
    finally:
        sender.stop()
    if len(sender.acknowledged) < len(keys):
        count = len(sender.acknowledged)
        raise TimeoutError(f"{count} of {len(keys)} events acknowledged: {sender.refused}")

    def all_ended(marks: Iterable[Mark]) -> bool:
        ended = {mark.key for mark in marks if mark.phase == "end"}
        return sender.acknowledged.keys() <= ended

    marks, _ = peer.site.marks.collect(all_ended, counts.lost_seconds)
    # A second run of an event comes after its first, if it does.
    time.sleep(min(5.0, counts.lost_seconds / 60))
    marks += peer.site.marks.read()
    return outcome(marks, sender.acknowledged, killed)


def kill(peer: Peer, counts: Counts) -> list[Figure]:
    """Measure what is lost, what runs twice, and how soon it goes on."""
    found: list[Outcome] = []
    until = time.monotonic() + counts.workload_seconds
    while not found or (len(found) < counts.kills and time.monotonic() < until):
        found.append(_once(peer, counts, len(found)))
    note = (
        f"{counts.kill_events} events around each kill -9, of which there were {len(found)};"
        f" in time is {counts.lost_seconds:g} s after the last one"
    )
    figures = [
        Figure(LOST, sum(each.lost for each in found), "", note=note),
        Figure("runs doubled", sum(each.doubled for each in found), "", note=note),
        Figure(
            "tasks begun again in their run", sum(each.begun_again for each in found), "", note=note
        ),
    ]
    for name, values in (
        ("kill -9 → first line of a task", [each.first_seconds for each in found]),
        ("kill -9 → all events of before worked off", [each.all_seconds for each in found]),
    ):
        known = [value for value in values if value is not None]
        if known:
            missing = "" if len(known) == len(found) else f"not in {len(found) - len(known)} cases"
            figures.append(median_figure(name, known, "s", note=missing))
    return figures
