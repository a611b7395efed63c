"""The alert service: calls callbacks that are due; every daemon with a scheduler runs it.

A row of `callback` is claimed for a few seconds at a time, so what a daemon was calling as it died
is called again by another one, or by itself after its start.
"""

import math

import anyio
import anyio.abc
import structlog
from anyio.abc import TaskStatus

from pubsubflow.alerts.announcer import Announcer
from pubsubflow.alerts.calls import CLAIM_SECONDS, CallbackCaller
from pubsubflow.alerts.freshness import FreshnessWatch
from pubsubflow.alerts.settings import AlertSettings
from pubsubflow.bus import Bus
from pubsubflow.errors import ServiceStopped, Unavailable
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.store.alerts.alerts import AlertStore
from pubsubflow.store.alerts.calls import CallbackStore, ClaimedCallback
from pubsubflow.wakeup import Wakeup

log = structlog.get_logger()

_SAFETY_SECONDS = 15.0
_RETRY_SECONDS = 0.5
_PRUNE_SECONDS = 3600.0
_GATHER_SECONDS = 0.05
"""Pause between announcements: those of a burst are made together, and leave room for alerts."""


class AlertService:
    """Calls callbacks in one daemon; several may run.

    Args:
        callbacks: The stored calls.
        caller: Carries them out.
        alerts: The stored alerts.
        announcer: Makes events of alerts.
        freshness: Opens and ends alerts about datasets.
        bus: Announces new calls.
        settings: How many at a time, and how long they are kept.
    """

    def __init__(
        self,
        *,
        callbacks: CallbackStore,
        caller: CallbackCaller,
        alerts: AlertStore,
        announcer: Announcer,
        freshness: FreshnessWatch,
        bus: Bus,
        settings: AlertSettings,
    ) -> None:
        self._callbacks = callbacks
        self._caller = caller
        self._alerts = alerts
        self._announcer = announcer
        self._freshness = freshness
        self._changed = Wakeup()
        self._bus = bus
        self._settings = settings
        self._wakeup = Wakeup()
        self._running = 0

    async def run(
        self,
        stopping: anyio.Event,
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Call what is due until `stopping` is set; what is under way is called again later."""
        subscription = await self._bus.subscribe(Subjects.CALLBACKS_CHANGED, self._notify)
        async with subscription, anyio.create_task_group() as group:
            group.start_soon(self._keep_calling, group)
            group.start_soon(self._keep_announcing)
            group.start_soon(self._freshness.run, self._notify)
            group.start_soon(self._keep_pruning)
            task_status.started()
            await stopping.wait()
            group.cancel_scope.cancel()

    def _notify(self, _: object = None) -> None:
        self._wakeup.notify()
        self._changed.notify()

    async def _keep_announcing(self) -> None:
        swept_at = announced_at = -math.inf
        while True:
            try:
                if anyio.current_time() - swept_at >= _SAFETY_SECONDS:
                    await self._announcer.sweep()
                    swept_at = anyio.current_time()
                else:
                    await self._announcer.announce()
                announced_at = anyio.current_time()
            except (Unavailable, ServiceStopped) as error:
                log.debug("alerts.announcement_postponed", reason=str(error))
                await anyio.sleep(_RETRY_SECONDS)
                continue
            await self._changed.wait(_SAFETY_SECONDS)
            # The first one after a while is made at once.
            await anyio.sleep(max(0.0, announced_at + _GATHER_SECONDS - anyio.current_time()))

    async def _keep_calling(self, group: anyio.abc.TaskGroup) -> None:
        while True:
            try:
                free = self._settings.at_once - self._running
                claimed = await self._callbacks.claim(free, CLAIM_SECONDS) if free else []
                pause = await self._callbacks.next_seconds() if free else None
            except Unavailable as error:
                log.debug("alerts.postponed", reason=str(error))
                await anyio.sleep(_RETRY_SECONDS)
                continue
            for callback in claimed:
                self._running += 1
                group.start_soon(self._call, callback)
            if len(claimed) < free or not free:
                seconds = _SAFETY_SECONDS if pause is None else max(0.0, pause)
                await self._wakeup.wait(min(seconds, _SAFETY_SECONDS))

    async def _call(self, callback: ClaimedCallback) -> None:
        try:
            await self._caller.call(callback)
        except (Unavailable, OSError) as error:
            # The claim ends by itself, and the call is tried again.
            log.warning("alerts.call_postponed", callback=callback.id, reason=str(error))
        finally:
            self._running -= 1
            # Its end may have opened or ended an alert.
            self._notify()

    async def _keep_pruning(self) -> None:
        while True:
            try:
                await self._callbacks.prune(self._settings.keep_days)
                await self._alerts.prune(self._settings.keep_days)
            except Unavailable as error:
                log.debug("alerts.pruning_postponed", reason=str(error))
            await anyio.sleep(_PRUNE_SECONDS)
