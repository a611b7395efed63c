"""One reader of the log of news for all who listen to this daemon.

Nobody has a queue: everyone has a place in the log, takes from the recent news in memory what
comes after it, and reads the log itself where those do not reach back that far. So a slow listener
costs no memory, and one that resumes is like one that was slow.
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
from pubsubflow.model.changes import Item, Place, Selection
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.store.read.changes import NewsRow, ReadNews
from pubsubflow.wakeup import Bell, Bells

log = structlog.get_logger(__name__)

_ROWS = 500
_ROWS_A_TURN = 100
_SWEEP_SECONDS = 1.0
_PAUSE_SECONDS = 0.25
_OPEN_SECONDS = 2.0
_WAKE_AT_ONCE = 50
_READ_BACK_AT_ONCE = 3
_BACK_BYTES = 128 * 1024


class Gone(Exception):  # noqa: N818 - never leaves this package
    """What is asked for is not in the log.

    Args:
        reason: `expired` or `unknown`; see `ResetNews`.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Row(Struct, frozen=True):
    """A row of the log, ready to be sent: its items, each with the message it makes."""

    number: int
    items: tuple[tuple[Item, bytes], ...]
    size: int


class Listener:
    """One who listens: a place in the log, and what is wanted.

    Attributes:
        place: Up to where all has been taken.
        wanted: What is wanted.
        bell: Rung when there may be something to take, and when the daemon stops.
    """

    def __init__(self, feed: "Feed", wanted: Selection, bell: Bell) -> None:
        self._feed = feed
        self.wanted = wanted
        self.bell = bell
        self.place = Place("", 0)

    def go_to_end(self) -> None:
        """Forget what was before: take only what comes from now on."""
        self.place = self._feed.end

    @property
    def behind(self) -> bool:
        """Whether there may be something to take."""
        return self.place.log != self._feed.end.log or self.place.row <= self._feed.settled

    async def take(self) -> list[bytes]:
        """Return the next messages that are wanted, as far as they are at hand.

        Raises:
            Gone: What comes next is not in the log any more.
            StoreUnavailable: Postgres is away.
        """
        place = self.place
        rows, self.place = await self._feed.rows_from(place)
        return [
            made
            for row in rows
            for index, (item, made) in enumerate(row.items)
            if (row.number > place.row or index >= place.item) and self.wanted.takes(item)
        ]


class Feed:
    """Reads the log while somebody listens.

    Args:
        news: The log.
        bells: Wakes the reader.
        recent_bytes: News kept in memory.
    """

    def __init__(self, news: ReadNews, bells: Bells, *, recent_bytes: int) -> None:
        self._news = news
        self._bells = bells
        self._recent_bytes = recent_bytes
        self._listeners: set[Listener] = set()
        self._somebody = anyio.Event()
        self._opened = anyio.Event()
        self._away = False
        self._reading_back = anyio.Semaphore(_READ_BACK_AT_ONCE)
        self._log = ""
        self._recent: list[_Row] = []
        self._size = 0
        self._first = 0
        self.settled = 0

    @property
    def end(self) -> Place:
        """The place after all that is known to have happened."""
        return Place(self._log, self.settled + 1)

    @asynccontextmanager
    async def listen(self, wanted: Selection) -> AsyncIterator[Listener]:
        """Let somebody listen, from now on unless placed elsewhere.

        Raises:
            StoreUnavailable: The log cannot be read.
        """
        async with self._bells.on() as bell:
            listener = Listener(self, wanted, bell)
            self._listeners.add(listener)
            self._somebody.set()
            try:
                await self._wait_opened()
                listener.go_to_end()
                yield listener
            finally:
                self._listeners.discard(listener)

    async def find(self, text: str) -> Place:
        """Return the place that an id stands for.

        Raises:
            Gone: It is none of this log, or no more.
            StoreUnavailable: Postgres is away.
        """
        place = Place.parse(text)
        if place is None:
            raise Gone("unknown")
        page = await self._news.page(place.row, place.row, 1)
        if place.log != page.log or place.row > page.last + 1:
            raise Gone("unknown")
        if place.row <= page.forgotten:
            raise Gone("expired")
        return place

    async def rows_from(self, place: Place) -> tuple[Sequence[_Row], Place]:
        """Return the next rows, and the place after them.

        Raises:
            Gone: They are not in the log any more.
            StoreUnavailable: Postgres is away.
        """
        if place.log != self._log:
            raise Gone("unknown")
        if place.row > self.settled:
            return (), place
        end = self.settled
        if place.row >= self._first:
            start = bisect_left(self._recent, place.row, key=_number)
            rows = self._recent[start : start + _ROWS_A_TURN]
        else:
            rows = await self._read_back(place, end)
        return rows, Place(place.log, (rows[-1].number if rows else end) + 1)

    async def run(self) -> None:
        """Read while somebody listens."""
        while True:
            await self._somebody.wait()
            try:
                async with self._bells.on(Subjects.NEWS, Subjects.DAGS_CHANGED) as bell:
                    await self._follow(bell)
            except Unavailable as error:
                if not self._away:
                    log.info("api.live_waits", reason=str(error))
                self._away = True
                await anyio.sleep(_PAUSE_SECONDS)
            if not self._listeners:
                self._close()

    async def _wait_opened(self) -> None:
        with anyio.move_on_after(_OPEN_SECONDS):
            await self._opened.wait()
            return
        raise StoreUnavailable("the log of what happens cannot be read now")

    async def _read_back(self, place: Place, end: int) -> list[_Row]:
        """Read rows that are not in memory; few at once, or those who lag would starve others."""
        async with self._reading_back:
            page = await self._news.page(place.row, end, _ROWS_A_TURN, _BACK_BYTES)
        if page.log != place.log:
            raise Gone("unknown")
        if page.forgotten >= place.row:
            raise Gone("expired")
        return [_ready(page.log, row) for row in page.rows]

    async def _follow(self, bell: Bell) -> None:
        if not self._opened.is_set():
            await self._open()
        while self._listeners:
            page = await self._news.after(self.settled, _ROWS)
            self._away = False
            if page.log != self._log:  # the database is another one: whoever listens is told
                await self._open()
                await self._wake(list(self._listeners))
            elif page.rows:
                await self._append([_ready(self._log, row) for row in page.rows])
            else:
                await bell.wait(_SWEEP_SECONDS)

    async def _open(self) -> None:
        page = await self._news.head()
        self._log, self.settled = page.log, page.last
        self._recent, self._size, self._first = [], 0, page.last + 1
        self._opened.set()

    def _close(self) -> None:
        self._opened = anyio.Event()
        self._somebody = anyio.Event()
        self._recent, self._size = [], 0

    async def _append(self, rows: Sequence[_Row]) -> None:
        """Make rows known, and wake those who want any of them; the others are past them."""
        before = self.end
        self._recent += rows
        self._size += sum(row.size for row in rows)
        self.settled = rows[-1].number
        self._trim()
        items = [item for row in rows for item, _ in row.items]
        wants: dict[Selection, bool] = {}
        awake = []
        for listener in self._listeners:
            selection, place = listener.wanted, listener.place
            if selection not in wants:
                wants[selection] = any(map(selection.takes, items))
            if place == before and not wants[selection]:
                listener.place = self.end
            elif place.row <= self.settled:
                awake.append(listener)
        await self._wake(awake)

    def _trim(self) -> None:
        gone = 0
        while self._size > self._recent_bytes and gone < len(self._recent) - 1:
            self._size -= self._recent[gone].size
            gone += 1
        if gone:
            self._first = self._recent[gone - 1].number + 1
            del self._recent[:gone]

    @staticmethod
    async def _wake(listeners: Sequence[Listener]) -> None:
        """Wake listeners a few at once: the daemon has other things to do, too."""
        for start in range(0, len(listeners), _WAKE_AT_ONCE):
            for listener in listeners[start : start + _WAKE_AT_ONCE]:
                listener.bell.ring()
            await anyio.lowlevel.checkpoint()


def _number(row: _Row) -> int:
    return row.number


def _ready(name: str, row: NewsRow) -> _Row:
    made = tuple(
        (item, message(item.kind, item.data, Place(name, row.number, index)))
        for index, item in enumerate(row.items, start=1)
    )
    return _Row(row.number, made, sum(len(text) for _, text in made) + 200)
