"""Fair queueing gives each sender of events its share, so that one flood does not delay the others.

It applies twice: to requests, by how many of the same share key are being served; and to the events
that they bring, which are passed to the manager in turn by share key (deficit round-robin, counted
in events). The share key names a webhook, a token or an address. Source: M. Shreedhar, G. Varghese,
Efficient Fair Queueing Using Deficit Round Robin, 1996.
"""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from pubsubflow.model.wire.commands import Command, CommandHandler, RecordEvents

SHARE_KEY: ContextVar[str | None] = ContextVar("lane", default=None)
"""The share key of the request that is being served; None where no fair share applies."""


WINDOW_EVENTS = 1000
"""Events that the manager may have at once: as many as one of its batches takes."""

QUANTUM_EVENTS = 100
"""Events that each share key may send in its turn."""


class RequestShares:
    """Counts the requests being served by share key.

    Args:
        most: Number at once; a single share key may use all of it while there is not another.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._served: Counter[str] = Counter()

    def has_room(self, share_key: str) -> bool:
        """Whether another request may start: within the total, or within the key's fair share."""
        if self._served.total() < self._most:
            return True
        mine = self._served[share_key]
        return mine < self._most / (len(self._served) + (mine == 0))

    @contextmanager
    def take(self, share_key: str) -> Iterator[None]:
        """Count a request as being served within the block."""
        self._served[share_key] += 1
        try:
            yield
        finally:
            self._served[share_key] -= 1
            # The number of keys divides the shares: a key without requests must not count.
            if not self._served[share_key]:
                del self._served[share_key]


class _QueuedCall:
    __slots__ = ("admitted", "weight")

    def __init__(self, weight: int) -> None:
        self.weight = weight
        self.admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class FairQueue:
    """Passes commands with a share key to the manager in turn, and all others at once.

    Args:
        calls: The manager.
        window: Events that it may have at once.
        quantum: Events of one turn.
    """

    def __init__(
        self,
        commands: CommandHandler,
        *,
        window: int = WINDOW_EVENTS,
        quantum: int = QUANTUM_EVENTS,
    ) -> None:
        self._commands = commands
        self._window = window
        self._quantum = quantum
        self._inside = 0
        self._queues: OrderedDict[str, deque[_QueuedCall]] = OrderedDict()
        self._credits: Counter[str] = Counter()

    async def execute(self, call: Command) -> Any:
        """Carry out a command when it is its share key's turn."""
        share_key = SHARE_KEY.get()
        if share_key is None:
            return await self._commands.execute(call)
        weight = max(1, len(call.events)) if isinstance(call, RecordEvents) else 1
        if self._queues or (self._inside and self._inside + weight > self._window):
            await self._wait_turn(share_key, weight)
        else:
            self._inside += weight
        try:
            return await self._commands.execute(call)
        finally:
            self._inside -= weight
            self._admit_next()

    async def _wait_turn(self, share_key: str, weight: int) -> None:
        queued = _QueuedCall(weight)
        self._queues.setdefault(share_key, deque()).append(queued)
        try:
            await queued.admitted
        except asyncio.CancelledError:
            # Cancelled after it was admitted and before this task ran: its weight is inside.
            if queued.admitted.cancelled():
                self._discard(share_key, queued)
            else:
                self._inside -= weight
            self._admit_next()
            raise

    def _admit_next(self) -> None:
        """Admit queued calls in turn, as far as the window has room."""
        while self._queues:
            share_key, queue = next(iter(self._queues.items()))
            first = queue[0]
            if first.admitted.cancelled():  # its client disconnected, and its task has not run yet
                self._discard(share_key, first)
                continue
            # A request larger than the whole window is admitted alone, or it would wait forever.
            if self._inside and self._inside + first.weight > self._window:
                return
            if self._credits[share_key] < first.weight:
                self._credits[share_key] += self._quantum
                self._queues.move_to_end(share_key)
                continue
            self._credits[share_key] -= first.weight
            self._inside += first.weight
            self._discard(share_key, first)
            first.admitted.set_result(None)

    def _discard(self, share_key: str, queued: _QueuedCall) -> None:
        queue = self._queues.get(share_key)
        if queue is None or queued not in queue:
            return
        queue.remove(queued)
        if not queue:
            del self._queues[share_key], self._credits[share_key]
