"""Leasing: a triggerer's leases on triggers, which it claims, renews and releases."""

import os
import socket
import time
from collections.abc import Callable, Collection, Iterable, Mapping

import anyio
import structlog

from pubsubflow.bus import Bus
from pubsubflow.errors import BusUnavailable, Unavailable
from pubsubflow.model.wire.messages import TriggersChangedMessage, encode
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.store.triggers import LeaseChecksum, LeasedTrigger, TriggerLeases
from pubsubflow.triggerer.settings import TriggererSettings

log = structlog.get_logger(__name__)

_FIRST_BATCH, _SHARED_BATCH, _MAX_BATCH = 16, 64, 256
_CLAIM_PAUSE_SECONDS = 0.005
_LOAD_PAUSE_SECONDS = 0.05
_FIRST_RETRY_SECONDS = 0.1
_MAX_RETRY_SECONDS = 2.0
_RELEASE_SECONDS = 5.0
_JUMP_SECONDS = 1.0


class Leasing:
    """The leases of one triggerer.

    Args:
        leases: The leases in the store.
        bus: Notifies other triggerers of triggers without a lease.
        settings: Capacity and intervals.
        on_claimed: Called with newly leased triggers.
        on_cancelled: Called with leased triggers that users cancelled.
        on_lost: Called with ids of triggers whose leases are lost.
        epochs: Returns id → epoch of all that runs, cancelled ones included.
        running: Returns how many triggers run.
        cleaning: Returns the ids of the cancelled ones that are known already.
        clock: Seconds.
        wall: Seconds since 1970.
    """

    def __init__(
        self,
        leases: TriggerLeases,
        bus: Bus,
        settings: TriggererSettings,
        *,
        on_claimed: Callable[[list[LeasedTrigger]], None],
        on_cancelled: Callable[[list[LeasedTrigger]], None],
        on_lost: Callable[[Iterable[int]], None],
        epochs: Callable[[], Mapping[int, int]],
        running: Callable[[], int],
        cleaning: Callable[[], Collection[int]],
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._leases = leases
        self._bus = bus
        self._settings = settings
        self._on_claimed = on_claimed
        self._on_cancelled = on_cancelled
        self._on_lost = on_lost
        self._epochs = epochs
        self._running = running
        self._cleaning = cleaning
        self._clock = clock
        self._wall = wall
        self._ahead = wall() - clock()
        # Held over each statement together with the change in memory that follows it: a renewal
        # in between would take a fresh claim for a lease that is not ours, and release it.
        self._lock = anyio.Lock()
        self._wake = anyio.Event()
        self._to_delete: set[int] = set()
        self._errors: dict[int, str | None] = {}
        self._store_lost = False
        self._others = True
        self._interrupted_at = -settings.silent_seconds
        self._renewed_at = clock()

    def wake(self) -> None:
        """Claim triggers now."""
        self._wake.set()

    def delete(self, trigger_id: int) -> None:
        """Delete the row of a cancelled trigger that has cleaned up, soon."""
        self._to_delete.add(trigger_id)
        self._wake.set()

    def record_error(self, trigger_id: int, error: str | None) -> None:
        """Store why a watch was started again, soon."""
        self._errors[trigger_id] = error
        self._wake.set()

    async def register(self) -> None:
        """Register the triggerer, so that it can claim triggers.

        Raises:
            Unavailable: The store is out of reach.
        """
        await self._leases.register(
            host=socket.gethostname(), pid=os.getpid(), capacity=self._settings.capacity
        )

    async def keep_claiming(self) -> None:
        """Claim triggers whenever there are some, until cancelled."""
        pause = _FIRST_RETRY_SECONDS
        woken = True
        while True:
            # Before the queries: what wakes us while they run leads to another round.
            self._wake = anyio.Event()
            try:
                await self._write()
                # A claim locks rows even if there is nothing: a sweep looks first.
                if woken or await self._leases.has_claimable():
                    await self._claim_cancelled()
                    await self._claim()
            except Unavailable as error:
                self._on_unavailable(error)
                await anyio.sleep(pause)
                pause = min(pause * 2, _MAX_RETRY_SECONDS)
                woken = True
                continue
            pause = _FIRST_RETRY_SECONDS
            with anyio.move_on_after(self._settings.sweep_seconds):
                await self._wake.wait()
            woken = self._wake.is_set()

    async def heartbeat(self) -> None:
        """Renew the leases, drop lost ones, and release those of triggerers that are silent."""
        settings = self._settings
        try:
            with anyio.fail_after(settings.silent_seconds):
                async with self._lock:
                    await self._renew()
                # After an interruption of ours all others seem silent: wait until they have had
                # the time to renew their leases.
                interrupted = self._clock() - self._interrupted_at <= settings.silent_seconds
                if self._others and not interrupted:
                    await self._release_silent()
        except (Unavailable, TimeoutError) as error:
            self._on_unavailable(error)
            return
        if self._store_lost:
            self._store_lost = False
            log.info("triggerer.store_recovered")

    async def release_all(self) -> None:
        """Release all leases for good, and notify the other triggerers."""
        released = 0
        try:
            with anyio.fail_after(_RELEASE_SECONDS):
                await self._write()
                released = await self._leases.deregister()
        except (Unavailable, TimeoutError) as error:
            log.warning("triggerer.release_failed", reason=str(error) or "it took too long")
        if released:
            self._notify_others()

    async def _renew(self) -> None:
        now = self._clock()
        ahead, self._ahead = self._ahead, self._wall() - now
        jumped = abs(self._ahead - ahead) > _JUMP_SECONDS
        if jumped or now - self._renewed_at > self._settings.silent_seconds / 2:
            # The process stood still, suspended or starved, or the clock was set: so the others may
            # only seem silent.
            self._interrupted_at = now
        held = self._epochs()
        living, stored = await self._leases.heartbeat(len(held))
        self._others = living > 1
        if not living:
            log.warning("triggerer.leases_lost", triggers=len(held))
            self._on_lost(tuple(held))
            await self.register()
            self._wake.set()
        elif stored != LeaseChecksum.of(held):
            await self._reconcile(held)
        self._renewed_at = self._clock()

    async def _reconcile(self, held: Mapping[int, int]) -> None:
        """Drop what is not leased any more, and release leases on what does not run here."""
        stored = await self._leases.list_leases()
        lost = [trigger_id for trigger_id, epoch in held.items() if stored.get(trigger_id) != epoch]
        unknown = stored.keys() - held.keys() - self._to_delete
        if lost:
            log.debug("triggerer.triggers_lost", triggers=len(lost))
            self._on_lost(lost)
        stray = [*unknown, *(stored.keys() & set(lost))]
        if stray:
            await self._leases.release(stray)
            self._wake.set()

    async def _release_silent(self) -> None:
        released = await self._leases.release_silent(self._settings.silent_seconds)
        for name, triggers in released.items():
            log.warning("triggerer.peer_expired", triggerer=name, triggers=triggers)
        if released:
            self._wake.set()
            self._notify_others()

    async def _write(self) -> None:
        """Write deletions and errors that have gathered."""
        if self._to_delete:
            trigger_ids = sorted(self._to_delete)
            async with self._lock:
                await self._leases.delete_cancelled(trigger_ids)
                self._to_delete.difference_update(trigger_ids)
        if self._errors:
            errors, self._errors = self._errors, {}
            try:
                await self._leases.record_errors(errors)
            except Unavailable:
                # What came meanwhile is newer, so it wins.
                self._errors = {**errors, **self._errors}
                raise

    async def _claim_cancelled(self) -> None:
        found = True
        while found:
            async with self._lock:
                known = self._to_delete.union(self._cleaning())
                leased = await self._leases.claim_cancelled(_MAX_BATCH, known)
                self._on_cancelled(leased)
            found = len(leased) == _MAX_BATCH

    async def _claim(self) -> None:
        """Claim batches that grow, with a pause before each."""
        batch = _FIRST_BATCH
        while True:
            running = self._running()
            free = self._settings.capacity - running
            if free <= 0:
                return
            # The pause grows with the load, so that the emptiest triggerer claims first.
            load = running / self._settings.capacity
            await anyio.sleep(_CLAIM_PAUSE_SECONDS + _LOAD_PAUSE_SECONDS * load)
            limit = min(batch, free)
            async with self._lock:
                leased = await self._leases.claim(limit)
                self._on_claimed(leased)
            if len(leased) < limit:
                return
            batch = min(batch * 2, _SHARED_BATCH if self._others else _MAX_BATCH)

    def _on_unavailable(self, error: Exception) -> None:
        self._interrupted_at = self._clock()
        if not self._store_lost:
            self._store_lost = True
            log.warning("triggerer.store_lost", reason=str(error) or "it does not answer")

    def _notify_others(self) -> None:
        try:
            message = encode(TriggersChangedMessage(has_new=True))
            self._bus.publish(Subjects.TRIGGERS_CHANGED, message)
        except BusUnavailable as error:
            # Their next sweep finds the triggers.
            log.debug("triggerer.notify_failed", reason=str(error))
