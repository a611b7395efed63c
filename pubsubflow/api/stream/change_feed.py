"""The change feed reads the change log once for all clients of the live stream.

Listeners have no queues. Each has a position in the log and takes what follows it from the recent
rows in memory, or from the log itself if those do not reach back that far. So a slow listener costs
no memory, and one that resumes is treated like one that was slow.
"""

from bisect import bisect_left
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import structlog
from msgspec import Struct

from pubsubflow.api.http.sse import message
from pubsubflow.errors import StoreUnavailable, Unavailable
from pubsubflow.model.changes import ChangeFilter, ChangeRecord, LogPosition, without_task
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.store.read.changes import ChangeRow, ReadChanges
from pubsubflow.wakeup import Wakeup, Wakeups

log = structlog.get_logger(__name__)

_MAX_ROWS_READ = 500
_MAX_ROWS_TAKEN = 100
_SWEEP_SECONDS = 1.0
_PAUSE_SECONDS = 0.25
_OPEN_SECONDS = 2.0
_MAX_WOKEN_AT_ONCE = 50
_MAX_BACKLOG_READS = 3
_BACKLOG_READ_BYTES = 128 * 1024


class PositionLost(Exception):  # noqa: N818 - never leaves this package
    """A position is not in the log, or not any more.

    Args:
        reason: `expired` or `unknown`; see `StreamReset`.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Row(Struct, frozen=True):
    """A row of the log, ready to be sent: its records, each with its encoded message."""

    number: int
    records: tuple[tuple[ChangeRecord, bytes], ...]
    size: int


class Listener:
    """A client of the live stream: a position in the log, and a filter.

    Attributes:
        position: Everything before it was taken.
        filter: Selects the changes to send.
        wakeup: Notified when there may be something to take, and when the daemon stops.
    """

    def __init__(self, feed: "ChangeFeed", filter: ChangeFilter, wakeup: Wakeup) -> None:
        self._feed = feed
        self.filter = filter
        self.wakeup = wakeup
        self.position = LogPosition("", 0)

    def go_to_end(self) -> None:
        """Skip what was recorded so far."""
        self.position = self._feed.end

    @property
    def is_behind(self) -> bool:
        """Whether there may be something to take."""
        behind_row = self.position.row <= self._feed.last_row
        return behind_row or self.position.log != self._feed.end.log

    async def take(self) -> list[bytes]:
        """Return the next messages that pass the filter, as far as they are at hand.

        Raises:
            PositionLost: What follows the position is not in the log any more.
            StoreUnavailable: Postgres is out of reach.
        """
        position = self.position
        rows, self.position = await self._feed.rows_from(position)
        return [
            self._shown(record, encoded, LogPosition(position.log, row.number, index + 1))
            for row in rows
            for index, (record, encoded) in enumerate(row.records)
            if (row.number > position.row or index >= position.index)
            and self.filter.matches(record)
        ]

    def _shown(self, record: ChangeRecord, encoded: bytes, after: LogPosition) -> bytes:
        if self.filter.hides_task_of(record):
            return message(record.kind, without_task(record.data), after)
        return encoded


class ChangeFeed:
    """Reads the log while there are listeners.

    Args:
        changes: The change log.
        wakeups: Notify when changes were recorded.
        recent_bytes: Size of the rows kept in memory.

    Attributes:
        last_row: Number of the last row read; no row can appear before it any more.
    """

    def __init__(self, changes: ReadChanges, wakeups: Wakeups, *, recent_bytes: int) -> None:
        self._changes = changes
        self._wakeups = wakeups
        self._recent_bytes = recent_bytes
        self._listeners: set[Listener] = set()
        self._has_listeners = anyio.Event()
        self._opened = anyio.Event()
        self._unavailable = False
        self._backlog_reads = anyio.Semaphore(_MAX_BACKLOG_READS)
        self._log = ""
        self._recent: list[_Row] = []
        self._size = 0
        self._first_recent = 0
        self.last_row = 0

    @property
    def end(self) -> LogPosition:
        """The position after the last row read."""
        return LogPosition(self._log, self.last_row + 1)

    @property
    def is_open(self) -> bool:
        """Whether it follows the log, so that `end` is of now."""
        return self._opened.is_set() and not self._unavailable

    @asynccontextmanager
    async def listen(self, filter: ChangeFilter) -> AsyncIterator[Listener]:
        """Yield a listener at the end of the log.

        Raises:
            StoreUnavailable: The log cannot be read.
        """
        async with self._wakeups.on() as wakeup:
            listener = Listener(self, filter, wakeup)
            self._listeners.add(listener)
            self._has_listeners.set()
            try:
                await self._wait_opened()
                listener.go_to_end()
                yield listener
            finally:
                self._listeners.discard(listener)

    async def locate(self, text: str) -> LogPosition:
        """Return the position that the id of a message stands for.

        Raises:
            PositionLost: It is not in this log, or not any more.
            StoreUnavailable: Postgres is out of reach.
        """
        position = LogPosition.parse(text)
        if position is None:
            raise PositionLost("unknown")
        page = await self._changes.page(position.row, position.row, 1)
        if position.log != page.log or position.row > page.last + 1:
            raise PositionLost("unknown")
        if position.row <= page.pruned_through:
            raise PositionLost("expired")
        return position

    async def rows_from(self, position: LogPosition) -> tuple[Sequence[_Row], LogPosition]:
        """Return the next rows, and the position after them.

        Raises:
            PositionLost: They are not in the log any more.
            StoreUnavailable: Postgres is out of reach.
        """
        if position.log != self._log:
            raise PositionLost("unknown")
        if position.row > self.last_row:
            return (), position
        # Rows may be appended while the log is read below: the bound is the one of now.
        end = self.last_row
        if position.row >= self._first_recent:
            start = bisect_left(self._recent, position.row, key=_number)
            rows = self._recent[start : start + _MAX_ROWS_TAKEN]
        else:
            rows = await self._read_backlog(position, end)
        return rows, LogPosition(position.log, (rows[-1].number if rows else end) + 1)

    async def run(self) -> None:
        """Read while there are listeners, until cancelled."""
        while True:
            await self._has_listeners.wait()
            try:
                subjects = (Subjects.CHANGES, Subjects.DAGS_CHANGED)
                async with self._wakeups.on(*subjects) as wakeup:
                    await self._follow(wakeup)
            except Unavailable as error:
                if not self._unavailable:
                    log.info("stream.read_postponed", reason=str(error))
                self._unavailable = True
                await anyio.sleep(_PAUSE_SECONDS)
            if not self._listeners:
                self._close()

    async def _wait_opened(self) -> None:
        with anyio.move_on_after(_OPEN_SECONDS):
            await self._opened.wait()
            return
        raise StoreUnavailable("the change log cannot be read now: try again")

    async def _read_backlog(self, position: LogPosition, end: int) -> list[_Row]:
        """Read rows that are not in memory."""
        # Few at once: listeners far behind must not take every connection of the pool.
        async with self._backlog_reads:
            page = await self._changes.page(position.row, end, _MAX_ROWS_TAKEN, _BACKLOG_READ_BYTES)
        if page.log != position.log:
            raise PositionLost("unknown")
        if page.pruned_through >= position.row:
            raise PositionLost("expired")
        return [_encoded(page.log, row) for row in page.rows]

    async def _follow(self, wakeup: Wakeup) -> None:
        if not self._opened.is_set():
            await self._open()
        while self._listeners:
            page = await self._changes.after(self.last_row, _MAX_ROWS_READ)
            self._unavailable = False
            if page.log != self._log:
                # The database was replaced. Every listener's position is of the old log, so each
                # gets a reset when it takes what is next.
                await self._open()
                await self._wake(list(self._listeners))
            elif page.rows:
                await self._append([_encoded(self._log, row) for row in page.rows])
            else:
                await wakeup.wait(_SWEEP_SECONDS)

    async def _open(self) -> None:
        page = await self._changes.head()
        self._log, self.last_row = page.log, page.last
        self._recent, self._size, self._first_recent = [], 0, page.last + 1
        self._opened.set()

    def _close(self) -> None:
        self._opened = anyio.Event()
        self._has_listeners = anyio.Event()
        self._recent, self._size = [], 0

    async def _append(self, rows: Sequence[_Row]) -> None:
        """Add rows, wake the listeners whose filter passes any, and move the others past them."""
        before = self.end
        self._recent += rows
        self._size += sum(row.size for row in rows)
        self.last_row = rows[-1].number
        self._trim()
        records = [record for row in rows for record, _ in row.records]
        # Many listeners share a filter, so each filter is evaluated once.
        passes: dict[ChangeFilter, bool] = {}
        woken = []
        for listener in self._listeners:
            if listener.filter not in passes:
                passes[listener.filter] = any(map(listener.filter.matches, records))
            if listener.position == before and not passes[listener.filter]:
                listener.position = self.end
            elif listener.position.row <= self.last_row:
                woken.append(listener)
        await self._wake(woken)

    def _trim(self) -> None:
        dropped = 0
        while self._size > self._recent_bytes and dropped < len(self._recent) - 1:
            self._size -= self._recent[dropped].size
            dropped += 1
        if dropped:
            self._first_recent = self._recent[dropped - 1].number + 1
            del self._recent[:dropped]

    @staticmethod
    async def _wake(listeners: Sequence[Listener]) -> None:
        """Wake listeners a few at a time, so that other tasks of the daemon run in between."""
        for start in range(0, len(listeners), _MAX_WOKEN_AT_ONCE):
            for listener in listeners[start : start + _MAX_WOKEN_AT_ONCE]:
                listener.wakeup.notify()
            await anyio.lowlevel.checkpoint()


def _number(row: _Row) -> int:
    return row.number


def _encoded(log_name: str, row: ChangeRow) -> _Row:
    # Each message's id is the position after it: a client that resumes there gets what follows.
    encoded = tuple(
        (record, message(record.kind, record.data, LogPosition(log_name, row.number, index)))
        for index, record in enumerate(row.records, start=1)
    )
    return _Row(row.number, encoded, sum(len(text) for _, text in encoded) + 200)
