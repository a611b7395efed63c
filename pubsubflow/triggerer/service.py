"""The triggerer service: leases triggers, runs them in a host process, publishes their events."""

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import anyio
import anyio.abc
import msgspec
import structlog

from pubsubflow.bus import Bus, Message
from pubsubflow.errors import Unavailable
from pubsubflow.model.wire.messages import FiredMessage, TaskError, decode_triggers_changed
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.runner.forkserver import ForkServer
from pubsubflow.services import next_turn, run_until
from pubsubflow.store.questions.answers import TaskQuestionQueries
from pubsubflow.store.secrets.connections import Connections
from pubsubflow.store.triggers import EndedRuns, LeasedTrigger, TriggerLeases
from pubsubflow.triggerer.answers import TriggerAnswers
from pubsubflow.triggerer.connections import TriggerConnections
from pubsubflow.triggerer.errors import TriggerErrors
from pubsubflow.triggerer.firings import FiringPublisher
from pubsubflow.triggerer.host_process import HostExit, HostProcess
from pubsubflow.triggerer.leased import ActiveTrigger, LeasedTriggers, crash_error, stuck_error
from pubsubflow.triggerer.leasing import Leasing
from pubsubflow.triggerer.metrics import TriggererMetrics
from pubsubflow.triggerer.protocol import (
    CleanUpTrigger,
    EventCommitted,
    HostCommand,
    HostReport,
    LoopBlocked,
    StartTriggers,
    StopTriggers,
    TriggerCleanedUp,
    TriggerConnectionRequest,
    TriggerFired,
    TriggerQuestion,
    TriggersFailed,
    TriggerSpec,
    TriggersTroubled,
)
from pubsubflow.triggerer.run_waits import RunWaits
from pubsubflow.triggerer.settings import TriggererSettings

log = structlog.get_logger(__name__)

_TRIGGERS_A_COMMAND = 500
_MAX_CRASHES = 3
_MAX_BACKOFF_SECONDS = 60.0
_IDLE_HEARTBEATS = 2


class Triggerer:
    """Runs triggers in one daemon; several triggerers share what there is.

    Args:
        leases: The stored triggers, under a name that no other triggerer has.
        bus: The connection; its streams exist.
        fork_server: Forks the process in which triggers run.
        name: The triggerer's name.
        settings: Capacity, intervals and limits.
        connections: The stored connections; without them triggers get none.
        ended_runs: Says which runs have ended; without it, no task waits for other runs.
        questions: Answers triggers of Airflow's; without it, they are refused.
        clock: Seconds.

    Attributes:
        metrics: Its counters and gauges.
        host: The process in which its triggers run.
    """

    def __init__(
        self,
        *,
        leases: TriggerLeases,
        bus: Bus,
        fork_server: ForkServer,
        name: str,
        settings: TriggererSettings,
        connections: Connections | None = None,
        ended_runs: EndedRuns | None = None,
        questions: TaskQuestionQueries | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bus = bus
        self._clock = clock
        self._name = name
        self._settings = settings
        self._leased = LeasedTriggers()
        self._cleaning: dict[int, ActiveTrigger] = {}
        self.metrics = TriggererMetrics(lambda: len(self._leased), settings.capacity)
        self._leasing = Leasing(
            leases,
            bus,
            settings,
            on_claimed=self._on_claimed,
            on_cancelled=self._on_cancelled,
            on_lost=self._on_ended,
            epochs=self._epochs,
            running=lambda: len(self._leased),
            cleaning=lambda: self._cleaning,
        )
        self._run_waits = RunWaits(ended_runs, bus, self._on_fired)
        self._errors = TriggerErrors(self._leasing.record_error)
        self._firings = FiringPublisher(
            bus,
            name,
            on_committed=self._on_committed,
            on_refused=self._on_refused,
            on_dropped=lambda message: self._stop_triggers([message.trigger]),
        )
        self.host = HostProcess(
            fork_server,
            settings,
            commands=self._all_commands,
            on_report=self._on_report,
            on_exit=self._on_host_exit,
        )
        self._connections = TriggerConnections(connections, self._lease_of, self.host.send)
        self._answers = TriggerAnswers(questions, self.host.send)

    async def run(
        self,
        stopping: anyio.Event,
        *,
        task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run triggers until `stopping` is set, then release them."""
        async with (
            await self._bus.subscribe(Subjects.TRIGGERS_CHANGED, self._on_triggers_changed),
            anyio.create_task_group() as self._group,
        ):
            await self._group.start(self._firings.run)
            # Messages that were published while the connection was away are lost.
            stop_listening = self._bus.on_reconnect(self._leasing.wake)
            try:
                await self._register()
                self._group.start_soon(self.host.run)
                await self._run_leasing(stopping, task_status)
                await self._stop()
            finally:
                stop_listening()
                self._group.cancel_scope.cancel()

    async def _run_leasing(
        self, stopping: anyio.Event, task_status: anyio.abc.TaskStatus[None]
    ) -> None:
        log.info("triggerer.started", name=self._name, capacity=self._settings.capacity)
        await run_until(
            stopping,
            self._leasing.keep_claiming,
            self._keep_sending_heartbeats,
            self._run_waits.keep_checking,
            task_status=task_status,
        )

    def _epochs(self) -> dict[int, int]:
        cleaning = {number: trigger.lease.epoch for number, trigger in self._cleaning.items()}
        return {**self._leased.epochs, **cleaning}

    async def _register(self) -> None:
        """Register once; while the store is out of reach the heartbeat repeats it."""
        try:
            await self._leasing.register()
        except Unavailable as error:
            log.warning("triggerer.store_lost", reason=str(error))

    async def _keep_sending_heartbeats(self) -> None:
        while True:
            # Without leases there is nothing to lose: half as many queries while idle.
            intervals = 1 if self._leased.epochs else _IDLE_HEARTBEATS
            await anyio.sleep_until(next_turn(intervals * self._settings.heartbeat_seconds))
            await self._leasing.heartbeat()
            await self.host.check(busy=bool(self._leased or self._cleaning))

    async def _stop(self) -> None:
        """Wait for pending events, close the triggers, release the leases."""
        with anyio.move_on_after(self._settings.drain_seconds):
            await self._firings.wait_none()
        await self.host.shut_down()
        await self._leasing.release_all()
        log.info("triggerer.stopped", name=self._name)

    def _on_triggers_changed(self, message: Message) -> None:
        changed = decode_triggers_changed(message.data)
        if changed.ended:
            self._on_ended(changed.ended)
        if changed.has_new:
            self._leasing.wake()

    def _on_ended(self, trigger_ids: Iterable[int]) -> None:
        """Stop triggers whose waits have ended or whose leases are lost."""
        mine = set(trigger_ids)
        # One with a pending event most likely ended because a manager has committed that: its
        # reply is on the way, and the trigger's `acknowledge` must still run.
        self._stop_triggers(mine - self._firings.await_briefly(mine))

    def _on_claimed(self, leased: list[LeasedTrigger]) -> None:
        if leased:
            self._firings.forget(lease.number for lease in leased)
            others = self._run_waits.add([self._leased.add(lease) for lease in leased])
            if others:
                self._start(others)
                self.host.require()

    def _start(self, triggers: Iterable[ActiveTrigger]) -> None:
        self.host.send(StartTriggers(tuple(self._host_spec(trigger) for trigger in triggers)))

    def _host_spec(self, trigger: ActiveTrigger) -> TriggerSpec:
        trigger.on_host = True
        return trigger.spec

    def _on_cancelled(self, leased: list[LeasedTrigger]) -> None:
        for lease in leased:
            trigger = self._leased.pop(lease.number) or ActiveTrigger(lease)
            self._firings.forget([lease.number])
            self._run_waits.discard([lease.number])
            self._cleaning[lease.number] = trigger
            self.host.send(CleanUpTrigger(trigger.spec))
            self.host.require()

    def _stop_triggers(self, trigger_ids: Iterable[int]) -> None:
        found = [each for each in trigger_ids if each in self._leased or each in self._cleaning]
        self._firings.forget(found)
        self._run_waits.discard(found)
        for trigger_id in found:
            self._leased.pop(trigger_id)
            self._cleaning.pop(trigger_id, None)
        if found:
            self.host.send(StopTriggers(tuple(found)))
            self._leasing.wake()

    def _all_commands(self) -> Iterator[HostCommand]:
        """Yield all commands that a new host needs."""
        # A trigger with a pending event is not started again: it would give the event twice.
        ready = (
            trigger
            for trigger in self._leased
            if not (trigger.backing_off or trigger.lease.number in self._firings)
            and trigger.lease.number not in self._run_waits
        )
        while part := tuple(self._host_spec(each) for each in islice(ready, _TRIGGERS_A_COMMAND)):
            yield StartTriggers(part)
        for trigger in self._cleaning.values():
            yield CleanUpTrigger(trigger.spec)

    def _on_report(self, report: HostReport) -> None:
        match report:
            case TriggerFired():
                self._on_fired(report)
            case TriggersFailed(trigger_ids, error):
                for trigger_id in trigger_ids:
                    self._fail(trigger_id, error)
            case TriggerCleanedUp(trigger_id):
                if self._cleaning.pop(trigger_id, None) is not None:
                    self._leasing.delete(trigger_id)
            case TriggersTroubled(trigger_ids, text):
                for trigger in filter(None, map(self._leased.get, trigger_ids)):
                    self._errors.on_trouble(trigger, text)
            case LoopBlocked():
                self._on_blocked(report)
            case TriggerConnectionRequest() | TriggerQuestion():
                self._group.start_soon(self._reply, report)

    async def _reply(self, request: TriggerConnectionRequest | TriggerQuestion) -> None:
        if isinstance(request, TriggerQuestion):
            await self._answers.reply(request)
        else:
            await self._connections.reply(request)

    def _lease_of(self, trigger_id: int) -> LeasedTrigger | None:
        found = self._leased.get(trigger_id) or self._cleaning.get(trigger_id)
        return None if found is None else found.lease

    def _on_fired(self, report: TriggerFired) -> None:
        trigger = self._leased.get(report.trigger_id)
        if trigger is None:
            self.host.send(StopTriggers((report.trigger_id,)))
            return
        if report.trigger_id in self._firings:
            return
        message = msgspec.structs.replace(
            trigger.firing,
            payload=report.payload,
            id=report.id,
            partition=report.partition,
            time=report.time,
            position=report.position,
            rejected=report.rejected,
        )
        self.metrics.fired.add()
        self._firings.publish(message)

    def _on_committed(self, message: FiredMessage) -> None:
        trigger_id = message.trigger
        self.host.send(EventCommitted(trigger_id))
        trigger = self._leased.get(trigger_id)
        if trigger is None:
            return
        if not trigger.watch:
            self._connections.on_committed(trigger.lease)
            self._leased.pop(trigger_id)
            self._run_waits.discard([trigger_id])
            self._leasing.wake()
            return
        trigger.lease = msgspec.structs.replace(
            trigger.lease, sequence=message.sequence, position=message.position
        )
        trigger.failures = 0
        self._errors.record(trigger, None)
        if not trigger.on_host:
            # The host that gave the event has died, and the new one did not get the trigger while
            # the event was pending.
            self._start([trigger])

    def _on_refused(self, message: FiredMessage, reason: str) -> None:
        self.host.send(StopTriggers((message.trigger,)))
        self._fail(message.trigger, TaskError("MessageRefused", reason, final=True))

    def _fail(self, trigger_id: int, error: TaskError) -> None:
        trigger = self._leased.get(trigger_id)
        if trigger is None or trigger_id in self._firings:
            return
        if trigger.watch:
            self._back_off(trigger, error)
            return
        self._firings.publish(msgspec.structs.replace(trigger.firing, error=error))

    def _back_off(self, trigger: ActiveTrigger, error: TaskError) -> None:
        """Start a failed watch again, later each time."""
        if trigger.backing_off:
            return
        seconds = min(2.0**trigger.failures, _MAX_BACKOFF_SECONDS)
        trigger.failures += 1
        trigger.backing_off = True
        self._errors.on_failed_watch(trigger, error, seconds)
        self._group.start_soon(self._restart, trigger, seconds)

    async def _restart(self, trigger: ActiveTrigger, seconds: float) -> None:
        await anyio.sleep(seconds)
        trigger.backing_off = False
        if self._leased.get(trigger.lease.number) is trigger:
            self._start([trigger])

    def _on_blocked(self, report: LoopBlocked) -> None:
        trigger_ids = list(report.trigger_ids)
        fields = {
            "trigger": report.name,
            "trigger_ids": trigger_ids[:10],
            "seconds": report.seconds,
        }
        for trigger in filter(None, map(self._leased.get, trigger_ids)):
            trigger.isolated = True
        if not report.stuck:
            log.warning("trigger.blocked_loop", **fields, stack=report.stack)
            return
        log.error("trigger.got_stuck", **fields, stack=report.stack)
        self.host.kill()
        error = stuck_error(report.name, self._settings.stuck_seconds, report.stack)
        self._fail_permanently(trigger_ids, error)

    def _on_host_exit(self, end: HostExit) -> None:
        """Fail the triggers that ended the host, as far as the flight record shows them."""
        stack = end.record.stack
        running = list(end.record.running)
        for trigger in self._leased:
            trigger.on_host = False
        log.error(
            "triggerer.host_died",
            exit_code=end.exit_code,
            running=running,
            stack=stack or None,
            **({"reason": "it did not answer"} if end.unresponsive else {}),
        )
        self.metrics.host_deaths.add()
        now = self._clock()
        for trigger_id in running:
            found = self._leased.get(trigger_id) or self._cleaning.get(trigger_id)
            if found is None:
                continue
            name = found.lease.name
            if end.unresponsive and len(running) == 1:
                error = stuck_error(name, self._settings.stuck_seconds, stack)
                self._fail_permanently([trigger_id], error)
            elif found.record_crash(now) >= _MAX_CRASHES:
                # Several run at once, one a thread, and any may be the cause: each is failed only
                # after it was there at several crashes.
                self._fail_permanently([trigger_id], crash_error(name, end.exit_code, stack))

    def _fail_permanently(self, trigger_ids: Iterable[int], error: TaskError) -> None:
        for trigger_id in trigger_ids:
            self._fail(trigger_id, error)
            if self._cleaning.pop(trigger_id, None) is not None:
                log.error("trigger.cleanup_failed", trigger_id=trigger_id, error=error.message)
                self._leasing.delete(trigger_id)
