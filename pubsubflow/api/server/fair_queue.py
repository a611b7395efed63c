"""Fair shares for those who bring events, so that a flood of one holds up nobody else.

Twice: before a request is worked on, by how many of its lane are at work; and before the manager
takes its events, in turn by lane (deficit round-robin, by events). A lane is a webhook, or a token
of those who post. Source: M. Shreedhar, G. Varghese, Efficient Fair Queueing Using Deficit Round
Robin, 1996.
"""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from pubsubflow.model.wire.commands import Call, Calls, PostEvents

LANE: ContextVar[str | None] = ContextVar("lane", default=None)
"""The lane of the request that is at work; None for what nobody floods."""


WINDOW_EVENTS = 1000
"""Events that are with the manager at once: as many as one of its batches takes."""

QUANTUM_EVENTS = 100
"""What each lane may send in its turn."""


class Shares:
    """How many requests of each lane are at work.

    Args:
        most: At work at once; a single lane may use all of it while nobody else is there.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._at_work: Counter[str] = Counter()

    def has_room(self, lane: str) -> bool:
        """Whether a lane may start another request: there is room, or others have its share."""
        if self._at_work.total() < self._most:
            return True
        mine = self._at_work[lane]
        return mine < self._most / (len(self._at_work) + (mine == 0))

    @contextmanager
    def take(self, lane: str) -> Iterator[None]:
        """Count a request of a lane as at work."""
        self._at_work[lane] += 1
        try:
            yield
        finally:
            self._at_work[lane] -= 1
            if not self._at_work[lane]:
                del self._at_work[lane]


class _Waiting:
    __slots__ = ("turn", "weight")

    def __init__(self, weight: int) -> None:
        self.weight = weight
        self.turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class FairCalls:
    """Passes calls of lanes on to the manager in turn, and all others at once.

    Args:
        calls: The manager.
        window: Events that it may have at once.
        quantum: Events of a lane's turn.
    """

    def __init__(
        self, calls: Calls, *, window: int = WINDOW_EVENTS, quantum: int = QUANTUM_EVENTS
    ) -> None:
        self._calls = calls
        self._window = window
        self._quantum = quantum
        self._inside = 0
        self._lanes: OrderedDict[str, deque[_Waiting]] = OrderedDict()
        self._credits: Counter[str] = Counter()

    async def call(self, call: Call) -> Any:
        """Carry out a call in its lane's turn; see `pubsubflow.model.wire.commands.Calls`."""
        lane = LANE.get()
        if lane is None:
            return await self._calls.call(call)
        weight = max(1, len(call.events)) if isinstance(call, PostEvents) else 1
        await self._enter(lane, weight)
        try:
            return await self._calls.call(call)
        finally:
            self._inside -= weight
            self._next()

    async def _enter(self, lane: str, weight: int) -> None:
        if not self._lanes and self._fits(weight):
            self._inside += weight
            return
        waiting = _Waiting(weight)
        self._lanes.setdefault(lane, deque()).append(waiting)
        try:
            await waiting.turn
        except asyncio.CancelledError:
            if waiting.turn.cancelled():
                self._forget(lane, waiting)
            else:
                self._inside -= weight
            self._next()
            raise

    def _fits(self, weight: int) -> bool:
        return not self._inside or self._inside + weight <= self._window

    def _next(self) -> None:
        """Let those in whose turn it is."""
        while self._lanes:
            lane, line = next(iter(self._lanes.items()))
            first = line[0]
            if first.turn.cancelled():  # its client left, and it has not woken up yet
                self._forget(lane, first)
                continue
            if not self._fits(first.weight):
                return
            if self._credits[lane] < first.weight:
                self._credits[lane] += self._quantum
                self._lanes.move_to_end(lane)
                continue
            self._credits[lane] -= first.weight
            self._inside += first.weight
            self._forget(lane, first)
            first.turn.set_result(None)

    def _forget(self, lane: str, waiting: _Waiting) -> None:
        line = self._lanes.get(lane)
        if line is None or waiting not in line:
            return
        line.remove(waiting)
        if not line:
            del self._lanes[lane], self._credits[lane]
