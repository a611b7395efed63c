"""The event pacer delays the events of running tasks while the managers are behind.

A task that publishes in a loop waits only until JetStream has stored each event, which is faster
than a manager records it. Without the pacer a few such loops fill the queue up to the limit
at which the API refuses everyone's events. With it, they go as fast as the managers, in turn.
"""

from collections import OrderedDict, deque
from collections.abc import Callable

import anyio
import structlog

from pubsubflow.bus import STREAM_IN, Bus
from pubsubflow.errors import ConfigError, Unavailable

log = structlog.get_logger(__name__)

MOST_PENDING = 1000
"""Messages for the managers; a twentieth of what the API takes before it refuses events."""
_SAMPLE_SECONDS = 0.1

Send = Callable[[], None]


class EventPacer:
    """Passes events on at once while few messages wait for the managers, else in turn by run.

    Args:
        bus: Counts what waits.
        most_pending: Messages that may wait before events are held.
    """

    def __init__(self, bus: Bus, *, most_pending: int = MOST_PENDING) -> None:
        self._bus = bus
        self._most_pending = most_pending
        self._room: int | None = None  # how many may pass until the next sample; None for all
        self._held: OrderedDict[int, deque[Send]] = OrderedDict()
        self._used = anyio.Event()

    @property
    def held(self) -> int:
        """The number of events that wait."""
        return sum(map(len, self._held.values()))

    def submit(self, run: int, send: Send) -> None:
        """Send an event of a run now, or in its turn."""
        self._used.set()
        if self._held or self._room == 0:
            self._held.setdefault(run, deque()).append(send)
            return
        if self._room is not None:
            self._room -= 1
        send()

    async def run(self) -> None:
        """Sample the managers' queue while events are published, until cancelled."""
        try:
            while True:
                await self._used.wait()
                if not self._held:
                    self._used = anyio.Event()
                await self._sample()
                await anyio.sleep(_SAMPLE_SECONDS)
        finally:
            self._room = None
            self._release()

    async def _sample(self) -> None:
        try:
            stats = await self._bus.read_consumer_stats(STREAM_IN, "managers")
        except (Unavailable, ConfigError) as error:
            # Nothing is stored meanwhile either: tasks wait for that.
            log.debug("worker.pace_sample_failed", error=str(error))
            self._room = None
        else:
            self._room = max(0, self._most_pending - stats.pending)
        self._release()

    def _release(self) -> None:
        """Send one event of each run in turn, as far as there is room."""
        while self._held and self._room != 0:
            run, events = self._held.popitem(last=False)
            events.popleft()()
            if events:
                self._held[run] = events
            if self._room is not None:
                self._room -= 1
