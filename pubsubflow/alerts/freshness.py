"""The watch over freshness: sleeps until the next dataset is due, then looks at its events.

No event touches it. Only while a dataset is stale does it listen to changes, as the next event ends
the alert.
"""

import math
from collections.abc import Callable

import anyio
import structlog

from pubsubflow.bus import Bus
from pubsubflow.bus.subscription import Subscription
from pubsubflow.errors import Unavailable
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.store.alerts.freshness import FreshnessStore
from pubsubflow.wakeup import Wakeup

log = structlog.get_logger()

_SAFETY_SECONDS = 15.0
_RETRY_SECONDS = 0.5
_PAUSE_SECONDS = 0.1
_PAUSE_FACTOR = 4
"""While datasets are stale and much happens, so many times of a look passes between two."""


class FreshnessWatch:
    """Looks at datasets in one daemon; several may.

    Args:
        store: The datasets and their events.
        bus: Announces new declarations, and events while a dataset is stale.
    """

    def __init__(self, store: FreshnessStore, bus: Bus) -> None:
        self._store = store
        self._bus = bus
        self._wakeup = Wakeup()
        self._mended_at = -math.inf
        self._changes: Subscription | None = None

    async def run(self, changed: Callable[[], None]) -> None:
        """Look at what is due until it is cancelled.

        Args:
            changed: Called when alerts have opened or ended.
        """

        def declared(_: object) -> None:
            # Declarations that are gone have ended alerts.
            changed()
            self._wakeup.notify()

        async with await self._bus.subscribe(Subjects.DAGS_CHANGED, declared):
            while True:
                try:
                    await self._look(changed)
                except Unavailable as error:
                    log.debug("freshness.look_postponed", reason=str(error))
                    await anyio.sleep(_RETRY_SECONDS)

    async def _look(self, changed: Callable[[], None]) -> None:
        began = anyio.current_time()
        if began - self._mended_at >= _SAFETY_SECONDS:
            await self._store.mend()
            self._mended_at = began
        found = await self._store.next()
        due = found.seconds is not None and found.seconds <= 0
        if due:
            outcome = await self._store.look_at_due()
            if outcome.changed:
                changed()
            # Without one, another daemon has them.
            await anyio.sleep(0 if outcome.looked else _PAUSE_SECONDS)
        if found.stale and (await self._store.look_at_stale()).changed:
            changed()
        # Again, if there is more, or if an event may have come just before.
        if due or await self._listen(stale=found.stale):
            return
        if found.stale:
            took = anyio.current_time() - began
            await anyio.sleep(max(_PAUSE_SECONDS, _PAUSE_FACTOR * took))
        pause = _SAFETY_SECONDS if found.seconds is None else found.seconds
        await self._wakeup.wait(min(pause, _SAFETY_SECONDS))

    async def _listen(self, *, stale: bool) -> bool:
        """Listen to changes while a dataset is stale; return whether that has just begun."""
        if stale and self._changes is None:
            self._changes = await self._bus.subscribe(Subjects.CHANGES, self._wakeup.notify)
            return True
        if not stale and self._changes is not None:
            self._changes.unsubscribe()
            self._changes = None
        return False
