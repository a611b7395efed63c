"""The triggerer: leases triggers, has a host process run them, tells managers what they saw."""

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import anyio
import anyio.abc
import msgspec
import structlog

from pubsubflow.bus import Bus, Message
from pubsubflow.errors import ConfigError, NotFound, Unavailable
from pubsubflow.model.wire.messages import (
    FiredMessage,
    TaskError,
    TriggersOrder,
    decode_triggers_order,
)
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.runner.forkserver import ForkServer
from pubsubflow.store.secrets.connections import Connections
from pubsubflow.store.triggers import Leased, TriggerLeases
from pubsubflow.triggerer.firings import Firings
from pubsubflow.triggerer.host_process import Death, Hosting
from pubsubflow.triggerer.leased import Held, Holdings, crash_error, stuck_error
from pubsubflow.triggerer.leasing import Leasing
from pubsubflow.triggerer.metrics import TriggererFigures
from pubsubflow.triggerer.protocol import (
    Blocked,
    CleanedUp,
    CleanUp,
    Durable,
    Failed,
    Fired,
    Given,
    Job,
    Order,
    Report,
    Said,
    Start,
    Stop,
    Wanted,
)
from pubsubflow.triggerer.settings import TriggererSettings

log = structlog.get_logger(__name__)

_PART = 500
_CRASHES = 3
_AGAIN_SECONDS = 1.0
_MAX_REST_SECONDS = 60.0
_IDLE_BEATS = 2
_RESERVED = frozenset({"event", "level", "timestamp", "trigger", "number"})


class Triggerer:
    """Runs triggers of one daemon. Several may run: they share what there is.

    Args:
        leases: The stored triggers, under a name that no other triggerer has.
        bus: The connection; its streams exist.
        fork_server: Forks the process in which triggers run.
        name: The triggerer's name.
        settings: See there.
        connections: Knows connections; triggers get none if left out.
        clock: Seconds.

    Attributes:
        figures: What it counts.
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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bus = bus
        self._clock = clock
        self._connections = connections
        self._name = name
        self._settings = settings
        self._held = Holdings()
        self._cleaning: dict[int, Held] = {}
        self.figures = TriggererFigures(lambda: len(self._held), settings.capacity)
        self._leasing = Leasing(
            leases,
            bus,
            settings,
            took=self._on_took,
            cancelled=self._on_cancelled,
            lost=self._on_gone,
            held=self._epochs,
            running=lambda: len(self._held),
            cleaning=lambda: self._cleaning,
        )
        self._firings = Firings(
            bus,
            name,
            durable=self._on_durable,
            refused=self._on_refused,
            dropped=lambda message: self._drop([message.trigger]),
        )
        self.hosting = Hosting(
            fork_server,
            settings,
            orders=self._orders,
            report=self._on_report,
            died=self._on_died,
        )

    async def run(
        self,
        stopping: anyio.Event,
        *,
        task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run triggers until `stopping` is set, then give them back."""
        async with (
            await self._bus.subscribe(Subjects.TRIGGERS, self._on_order),
            anyio.create_task_group() as self._group,
        ):
            await self._group.start(self._firings.run)
            unheard = self._bus.on_reconnect(self._leasing.wake)
            try:
                await self._register()
                self._group.start_soon(self.hosting.run)
                await self._work(stopping, task_status)
                await self._stop()
            finally:
                unheard()
                self._group.cancel_scope.cancel()

    async def _work(self, stopping: anyio.Event, task_status: anyio.abc.TaskStatus[None]) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(self._leasing.keep_claiming)
            group.start_soon(self._keep_beating)
            log.info("triggerer.started", name=self._name, capacity=self._settings.capacity)
            task_status.started()
            await stopping.wait()
            group.cancel_scope.cancel()

    def _epochs(self) -> dict[int, int]:
        cleaning = {number: held.lease.epoch for number, held in self._cleaning.items()}
        return {**self._held.epochs, **cleaning}

    async def _register(self) -> None:
        """Become known; while the store is away the heartbeat goes on trying."""
        try:
            await self._leasing.register()
        except Unavailable as error:
            log.warning("triggerer.store_away", reason=str(error))

    async def _keep_beating(self) -> None:
        while True:
            beats = 1 if self._held.epochs else _IDLE_BEATS  # it has nothing to lose then
            await anyio.sleep(beats * self._settings.heartbeat_seconds)
            await self._leasing.beat()
            await self.hosting.tend(busy=bool(self._held or self._cleaning))

    async def _stop(self) -> None:
        """Let what is under way become durable, close the triggers, give them back."""
        with anyio.move_on_after(self._settings.drain_seconds):
            await self._firings.wait_none()
        await self.hosting.finish()
        await self._leasing.resign()
        log.info("triggerer.stopped", name=self._name)

    def _on_order(self, message: Message) -> None:
        order: TriggersOrder = decode_triggers_order(message.data)
        if order.gone:
            self._on_gone(order.gone)
        if order.fresh:
            self._leasing.wake()

    def _on_gone(self, numbers: Iterable[int]) -> None:
        """Stop what is not ours any more, but for what may be gone because its event is durable."""
        mine = set(numbers)
        self._drop(mine - self._firings.relent(mine))

    def _on_took(self, leased: list[Leased]) -> None:
        if leased:
            self._firings.forget(lease.number for lease in leased)
            self._start([self._held.add(lease) for lease in leased])
            self.hosting.need()

    def _start(self, found: Iterable[Held]) -> None:
        self.hosting.send(Start(tuple(self._hosted(held) for held in found)))

    def _hosted(self, held: Held) -> Job:
        held.hosted = True
        return held.job

    def _on_cancelled(self, leased: list[Leased]) -> None:
        for lease in leased:
            held = self._held.pop(lease.number) or Held(lease)
            self._firings.forget([lease.number])
            self._cleaning[lease.number] = held
            self.hosting.send(CleanUp(held.job))
            self.hosting.need()

    def _drop(self, numbers: Iterable[int]) -> None:
        """Stop triggers that nobody waits for, or that are not ours any more."""
        found = [each for each in numbers if each in self._held or each in self._cleaning]
        self._firings.forget(found)
        for number in found:
            self._held.pop(number)
            self._cleaning.pop(number, None)
        if found:
            self.hosting.send(Stop(tuple(found)))
            self._leasing.wake()

    def _orders(self) -> Iterator[Order]:
        """Yield all that a new host has to do: what waits for a manager has been done."""
        idle = (
            each
            for each in self._held
            if not each.resting and each.lease.number not in self._firings
        )
        while part := tuple(self._hosted(each) for each in islice(idle, _PART)):
            yield Start(part)
        for held in self._cleaning.values():
            yield CleanUp(held.job)

    def _on_report(self, report: Report) -> None:
        match report:
            case Fired():
                self._on_fired(report)
            case Failed(numbers, error):
                for number in numbers:
                    self._fail(number, error)
            case CleanedUp(number):
                if self._cleaning.pop(number, None) is not None:
                    self._leasing.remove(number)
            case Blocked():
                self._on_blocked(report)
            case Wanted():
                self._group.start_soon(self._give, report)
            case Said(level, event, number, name, fields):
                fields = {f"{key}_" if key in _RESERVED else key: fields[key] for key in fields}
                getattr(log, level)(event, trigger=name, number=number, **fields)

    async def _give(self, wanted: Wanted) -> None:
        """Answer a trigger that asks for a connection, as soon as anybody can tell."""
        given = Given(wanted.lane, wanted.question, wanted.name)
        while self._connections is not None:
            try:
                found = await self._connections.read(wanted.name)
            except Unavailable as error:
                log.warning("triggerer.store_away", reason=str(error))
                await anyio.sleep(_AGAIN_SECONDS)
                continue
            except (NotFound, ConfigError) as error:
                given = msgspec.structs.replace(given, error=str(error))
            else:
                given = msgspec.structs.replace(given, connection=found, error=None)
            break
        self.hosting.send(given)

    def _on_fired(self, report: Fired) -> None:
        held = self._held.get(report.number)
        if held is None:
            self.hosting.send(Stop((report.number,)))
            return
        if report.number in self._firings:
            return
        message = msgspec.structs.replace(
            held.message,
            payload=report.payload,
            id=report.id,
            partition=report.partition,
            time=report.time,
            position=report.position,
        )
        self.figures.fired.add()
        self._firings.fire(message)

    def _on_durable(self, message: FiredMessage) -> None:
        number = message.trigger
        self.hosting.send(Durable(number))
        held = self._held.get(number)
        if held is None:
            return
        if not held.watch:
            self._held.pop(number)
            self._leasing.wake()
            return
        held.lease = msgspec.structs.replace(
            held.lease, sequence=message.sequence, position=message.position
        )
        held.failures = 0
        self._note_error(held, None)
        if not held.hosted:  # the host that saw the event is no more
            self._start([held])

    def _on_refused(self, message: FiredMessage, reason: str) -> None:
        """Fail a trigger whose event no bus will take."""
        self.hosting.send(Stop((message.trigger,)))
        self._fail(message.trigger, TaskError("MessageRefused", reason, final=True))

    def _fail(self, number: int, error: TaskError) -> None:
        held = self._held.get(number)
        if held is None or number in self._firings:
            return
        if held.watch:
            self._rest(held, error)
            return
        self._firings.fire(msgspec.structs.replace(held.message, error=error))

    def _rest(self, held: Held, error: TaskError) -> None:
        """Start a watch again after a while."""
        if held.resting:
            return
        seconds = min(2.0**held.failures, _MAX_REST_SECONDS)
        held.failures += 1
        held.resting = True
        text = f"{error.type}: {error.message}"
        if text != held.error:
            lease = held.lease
            log.warning(
                "trigger.watch_failed",
                trigger=lease.name,
                number=lease.number,
                error=text,
                again_in_seconds=seconds,
                traceback=error.traceback or None,
            )
        self._note_error(held, text)
        self._group.start_soon(self._start_again, held, seconds)

    async def _start_again(self, held: Held, seconds: float) -> None:
        await anyio.sleep(seconds)
        held.resting = False
        if self._held.get(held.lease.number) is held:
            self._start([held])

    def _note_error(self, held: Held, error: str | None) -> None:
        if held.error != error:
            held.error = error
            self._leasing.note_error(held.lease.number, error)

    def _on_blocked(self, report: Blocked) -> None:
        numbers = list(report.numbers)
        about = {"trigger": report.name, "numbers": numbers[:10], "seconds": report.seconds}
        for held in filter(None, map(self._held.get, numbers)):
            held.apart = True
        if not report.stuck:
            log.warning("trigger.blocks", **about, stack=report.stack)
            return
        log.error("trigger.stuck", **about, stack=report.stack)
        self.hosting.kill()
        self._condemn(numbers, stuck_error(report.name, self._settings.stuck_seconds, report.stack))

    def _on_died(self, death: Death) -> None:
        """Fail the triggers because of which a host died, as far as that can be told."""
        stack = death.recorded.stack
        running = list(death.recorded.running)
        for held in self._held:
            held.hosted = False
        log.error(
            "triggerer.host_died",
            exit_code=death.exit_code,
            running=running,
            stack=stack or None,
            **({"reason": "it did not answer"} if death.deaf else {}),
        )
        self.figures.host_deaths.add()
        now = self._clock()
        for number in running:
            found = self._held.get(number) or self._cleaning.get(number)
            if found is None:
                continue
            name = found.lease.name
            if death.deaf and len(running) == 1:
                self._condemn([number], stuck_error(name, self._settings.stuck_seconds, stack))
            elif found.strike(now) >= _CRASHES:
                self._condemn([number], crash_error(name, death.exit_code, stack))

    def _condemn(self, numbers: Iterable[int], error: TaskError) -> None:
        for number in numbers:
            self._fail(number, error)
            if self._cleaning.pop(number, None) is not None:
                log.error("trigger.cleanup_failed", number=number, error=error.message)
                self._leasing.remove(number)
