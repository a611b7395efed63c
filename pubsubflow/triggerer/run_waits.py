"""Waits for other runs: answered here, by what the store says, and by no process of user code."""

from collections.abc import Callable, Iterable

import anyio
import msgspec
import structlog

from pubsubflow.bus import Bus
from pubsubflow.errors import BusUnavailable, Unavailable
from pubsubflow.model.triggers import RUN_ENDED, EndedRun, RunEnded
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.store.triggers import EndedRuns
from pubsubflow.triggerer.leased import ActiveTrigger
from pubsubflow.triggerer.protocol import TriggerFired

log = structlog.get_logger(__name__)

_LEAST_SECONDS = 0.05
_SWEEP_SECONDS = 5.0
_RETRY_SECONDS = 1.0
_decode = msgspec.msgpack.Decoder(RunEnded).decode
_encode = msgspec.msgpack.Encoder().encode


def is_run_wait(trigger: ActiveTrigger) -> bool:
    """Return whether a trigger waits for another run; a watch of one goes to the trigger host."""
    return trigger.lease.name == RUN_ENDED and not trigger.watch


class RunWaits:
    """The waits for other runs that this triggerer has leased.

    A change of the store wakes them; many changes within a moment are one look.

    Args:
        store: Says which runs have ended; None for a triggerer that answers no such waits.
        bus: Announces changes of the store.
        on_fired: Gets the event of a wait.
    """

    def __init__(
        self, store: EndedRuns | None, bus: Bus, on_fired: Callable[[TriggerFired], None]
    ) -> None:
        self._bus = bus
        self._store = store
        self._on_fired = on_fired
        self._waits: dict[int, RunEnded] = {}
        self._wake = anyio.Event()

    def add(self, triggers: Iterable[ActiveTrigger]) -> list[ActiveTrigger]:
        """Take what waits for runs, and return the other triggers."""
        others = []
        for trigger in triggers:
            if self._store is not None and is_run_wait(trigger):
                self._waits[trigger.lease.number] = _decode(trigger.lease.data)
                self.wake()
            else:
                others.append(trigger)
        return others

    def __contains__(self, trigger_id: int) -> bool:
        return trigger_id in self._waits

    def discard(self, trigger_ids: Iterable[int]) -> None:
        """Drop waits that have ended, or whose leases are lost."""
        for trigger_id in trigger_ids:
            self._waits.pop(trigger_id, None)

    def wake(self, _: object = None) -> None:
        """Look again: something has changed."""
        if self._waits:
            self._wake.set()

    async def keep_checking(self) -> None:
        """Look for ended runs after each change, for as long as anything waits for one."""
        while True:
            await self._next(None)
            try:
                # Only meanwhile: without waits, a change of the store costs this daemon nothing.
                async with await self._bus.subscribe(Subjects.CHANGES, self.wake):
                    while self._waits:
                        await self._check()
                        await anyio.sleep(_LEAST_SECONDS)
                        # A slow look is the safety net for a message that was lost.
                        await self._next(_SWEEP_SECONDS)
            except BusUnavailable as error:
                log.warning("triggerer.bus_lost", reason=str(error))
                await anyio.sleep(_RETRY_SECONDS)
                self.wake()

    async def _next(self, seconds: float | None) -> None:
        """Wait until something has changed."""
        if self._waits or seconds is None:
            with anyio.move_on_after(seconds):
                await self._wake.wait()
            self._wake = anyio.Event()

    async def _check(self) -> None:
        if self._store is None:
            return
        try:
            found = await self._store.find(dict(self._waits))
        except Unavailable as error:
            log.warning("triggerer.store_lost", reason=str(error))
            return
        for number, run in found.items():
            wanted = self._waits.get(number)
            if wanted is not None and _counts(wanted, run):
                # It stays until a manager has committed the event: a lost one is given again.
                self._on_fired(TriggerFired(number, _encode(msgspec.to_builtins(run)), run.run_id))


def _counts(wanted: RunEnded, run: EndedRun) -> bool:
    return not wanted.states or run.state in wanted.states
