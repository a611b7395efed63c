"""Takes triggers that nobody runs, and keeps them by telling that it lives."""

import os
import socket
import time
from collections.abc import Callable, Collection, Iterable, Mapping

import anyio
import structlog

from pubsubflow.bus import Bus
from pubsubflow.errors import BusUnavailable, Unavailable
from pubsubflow.model.wire.messages import TriggersOrder, encode
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.store.triggers import Leased, Sums, TriggerLeases
from pubsubflow.triggerer.settings import TriggererSettings

log = structlog.get_logger(__name__)

_FIRST_HELPING, _FAIR_HELPING, _LARGEST_HELPING = 16, 64, 256
_BREATH_SECONDS = 0.005
_LOAD_SECONDS = 0.05
_MAX_PAUSE_SECONDS = 2.0
_RESIGN_SECONDS = 5.0


class Leasing:
    """The leases of one triggerer.

    Args:
        leases: Where they are.
        bus: Tells other triggerers when there is something to take.
        settings: See there.
        took: Called with triggers that are ours now.
        cancelled: Called with those of ours that users cancelled.
        lost: Called with numbers that are not ours any more.
        held: Returns what we run, cancelled ones included, number → epoch.
        running: Returns how many we run.
        cleaning: Returns the cancelled ones that are known.
        clock: Seconds.
    """

    def __init__(
        self,
        leases: TriggerLeases,
        bus: Bus,
        settings: TriggererSettings,
        *,
        took: Callable[[list[Leased]], None],
        cancelled: Callable[[list[Leased]], None],
        lost: Callable[[Iterable[int]], None],
        held: Callable[[], Mapping[int, int]],
        running: Callable[[], int],
        cleaning: Callable[[], Collection[int]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._leases = leases
        self._bus = bus
        self._settings = settings
        self._took = took
        self._cancelled = cancelled
        self._lost = lost
        self._held = held
        self._running = running
        self._cleaning = cleaning
        self._clock = clock
        self._lock = anyio.Lock()
        self._wake = anyio.Event()
        self._cleaned: set[int] = set()
        self._errors: dict[int, str | None] = {}
        self._away = False
        self._others = True
        self._broke_at = -settings.silent_seconds
        self._beat_at = clock()

    def wake(self) -> None:
        """Look for triggers now."""
        self._wake.set()

    def remove(self, number: int) -> None:
        """Remove a cancelled trigger's row, soon."""
        self._cleaned.add(number)
        self._wake.set()

    def note_error(self, number: int, error: str | None) -> None:
        """Store why a watch was started again, soon."""
        self._errors[number] = error
        self._wake.set()

    async def register(self) -> None:
        """Become known, so that triggers are given to us.

        Raises:
            Unavailable: The store is away.
        """
        await self._leases.register(
            host=socket.gethostname(), pid=os.getpid(), capacity=self._settings.capacity
        )

    async def keep_claiming(self) -> None:
        """Take triggers whenever there are some, until cancelled."""
        pause = 0.1
        while True:
            self._wake = anyio.Event()
            try:
                await self._write()
                await self._claim_cancelled()
                await self._claim()
            except Unavailable as error:
                self._trouble(error)
                await anyio.sleep(pause)
                pause = min(pause * 2, _MAX_PAUSE_SECONDS)
                continue
            pause = 0.1
            with anyio.move_on_after(self._settings.sweep_seconds):
                await self._wake.wait()

    async def beat(self) -> None:
        """Tell that we live, drop what is not ours any more, and bury those who do not live."""
        settings = self._settings
        try:
            with anyio.fail_after(settings.silent_seconds):
                async with self._lock:
                    await self._keep()
                if self._clock() - self._broke_at > settings.silent_seconds:
                    await self._bury()
        except (Unavailable, TimeoutError) as error:
            self._trouble(error)
            return
        if self._away:
            self._away = False
            log.info("triggerer.store_back")

    async def resign(self) -> None:
        """Give everything back at once, and tell the others."""
        freed = 0
        try:
            with anyio.fail_after(_RESIGN_SECONDS):
                await self._write()
                freed = await self._leases.resign()
        except (Unavailable, TimeoutError) as error:
            log.warning("triggerer.not_given_back", reason=str(error) or "it took too long")
        if freed:
            self._tell_others()

    async def _keep(self) -> None:
        now = self._clock()
        if now - self._beat_at > self._settings.silent_seconds / 2:
            self._broke_at = now  # we stood still ourselves, so others may seem to
        held = self._held()
        living = await self._leases.beat(len(held))
        self._others = living > 1
        if not living:
            log.warning("triggerer.leases_lost", triggers=len(held))
            self._lost(tuple(held))
            await self.register()
            self._wake.set()
        elif await self._leases.sums() != Sums.of(held):
            await self._compare(held)
        self._beat_at = self._clock()

    async def _compare(self, held: Mapping[int, int]) -> None:
        """Find what is not ours any more, and what is ours although we do not know of it."""
        stored = await self._leases.held()
        lost = [number for number, epoch in held.items() if stored.get(number) != epoch]
        unknown = stored.keys() - held.keys() - self._cleaned
        if lost:
            log.debug("triggerer.triggers_gone", triggers=len(lost))
            self._lost(lost)
        strange = [*unknown, *(stored.keys() & set(lost))]
        if strange:
            await self._leases.give_back(strange)
            self._wake.set()

    async def _bury(self) -> None:
        freed = await self._leases.free_silent(self._settings.silent_seconds)
        for name, triggers in freed.items():
            log.warning("triggerer.gone", triggerer=name, triggers=triggers)
        if freed:
            self._wake.set()
            self._tell_others()

    async def _write(self) -> None:
        """Write down what has come to be written."""
        if self._cleaned:
            numbers = sorted(self._cleaned)
            async with self._lock:
                await self._leases.remove(numbers)
                self._cleaned.difference_update(numbers)
        if self._errors:
            errors, self._errors = self._errors, {}
            try:
                await self._leases.note_errors(errors)
            except Unavailable:
                self._errors = {**errors, **self._errors}
                raise

    async def _claim_cancelled(self) -> None:
        found = True
        while found:
            async with self._lock:
                known = self._cleaned.union(self._cleaning())
                leased = await self._leases.claim_cancelled(_LARGEST_HELPING, known)
                self._cancelled(leased)
            found = len(leased) == _LARGEST_HELPING

    async def _claim(self) -> None:
        """Take helpings that grow, with a breath before each: the longer, the more we have."""
        helping = _FIRST_HELPING
        while True:
            running = self._running()
            room = self._settings.capacity - running
            if room <= 0:
                return
            load = running / self._settings.capacity
            await anyio.sleep(_BREATH_SECONDS + _LOAD_SECONDS * load)
            limit = min(helping, room)
            async with self._lock:
                leased = await self._leases.claim(limit)
                self._took(leased)
            if len(leased) < limit:
                return
            largest = _FAIR_HELPING if self._others else _LARGEST_HELPING
            helping = min(helping * 2, largest)

    def _trouble(self, error: Exception) -> None:
        self._broke_at = self._clock()
        if not self._away:
            self._away = True
            log.warning("triggerer.store_away", reason=str(error) or "it does not answer")

    def _tell_others(self) -> None:
        try:
            self._bus.publish(Subjects.TRIGGERS, encode(TriggersOrder(fresh=True)))
        except BusUnavailable as error:
            log.debug("triggerer.untold", reason=str(error))  # their sweep finds it
