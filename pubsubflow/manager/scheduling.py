"""Folds events, ticks and requests into runs."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from pubsubflow.errors import InvalidInput
from pubsubflow.manager.ledger import (
    GateWork,
    Ledger,
    LoggedEvent,
    NewRun,
    RunWork,
)
from pubsubflow.manager.running import Running
from pubsubflow.manager.versions import Version
from pubsubflow.model.calls import StartRun, Timer
from pubsubflow.model.conditions import decide
from pubsubflow.model.messages import EventInfo, RunInfo, encode
from pubsubflow.model.params import validate_params
from pubsubflow.model.progress import begin
from pubsubflow.model.states import RunState
from pubsubflow.model.timetable import next_tick
from pubsubflow.store.database import printable

INLINE_EVENTS = 500
INLINE_EVENT_BYTES = 128 * 1024
MAX_PARAMS_BYTES = 256 * 1024


class Scheduling:
    """Decides which runs exist; all gates it touches are locked."""

    def __init__(
        self,
        ledger: Ledger,
        running: Running,
        *,
        new_id: Callable[[], UUID],
        take_number: Callable[[], int],
    ) -> None:
        self._ledger = ledger
        self._running = running
        self._new_id = new_id
        self._take_number = take_number

    def event(self, gate: GateWork, event: LoggedEvent) -> None:
        """Let one event through a gate whose DAG subscribes to its dataset."""
        places = gate.version.places[event.info.dataset]
        if not gate.paused:
            self.offer(gate, event, places)
        elif gate.version.spec.on_pause == "hold":
            self._hold(gate, event, places)

    def _hold(self, gate: GateWork, event: LoggedEvent, places: Iterable[int]) -> None:
        for place in places:
            gate.fresh[place].append(event)
        gate.changed = True

    def offer(self, gate: GateWork, event: LoggedEvent, places: Sequence[int]) -> None:
        """Add one event to places of the DAG and make the run that then fires, if any."""
        condition = gate.version.spec.condition
        if condition is None:
            return
        _, consumed = decide(condition, gate.pending, places)
        self._hold(gate, event, places)
        if not consumed:
            return
        run = self._make(
            gate,
            f"dataset:{event.event_id}",
            "dataset",
            dict(gate.version.spec.params),
            f"{event.info.dataset} was updated",
            partition=event.info.partition,
        )
        for place in sorted(consumed):
            run.consumed.extend((fresh, place) for fresh in gate.fresh[place])
            if gate.stored[place]:
                run.drained.append(place)
                run.drained_count += gate.stored[place]
            gate.stored[place] = 0
            gate.fresh[place] = []

    def asked(self, gate: GateWork, call: StartRun, run_key: str) -> NewRun:
        """Start a run because somebody asks for it.

        Raises:
            InvalidInput: The params do not fit the DAG, or are too large to travel.
        """
        params = validate_params(gate.version.spec, call.params)
        size = len(encode(params))
        if size > MAX_PARAMS_BYTES:
            raise InvalidInput(
                f"params of {size} bytes are larger than {MAX_PARAMS_BYTES}: "
                "store the data elsewhere and pass where it is"
            )
        cause = printable(call.cause)
        logical_time = call.logical_time
        return self._make(gate, run_key, "manual", params, cause, logical_time=logical_time)

    def tick(self, gate: GateWork, timer: Timer) -> datetime | None:
        """A DAG's time has come: set the next tick and return the one whose run is due now.

        Without catch-up that is the latest of several missed ticks. While the DAG is paused none
        is due.
        """
        spec = gate.version.spec
        if spec.timetable is None:
            return None
        tick, now = timer.due_at, self._ledger.now
        following = next_tick(spec.timetable, tick, spec.start, spec.end)
        while following is not None and following <= now and not spec.catchup:
            tick, following = following, next_tick(spec.timetable, following, spec.start, spec.end)
        if following is not None:
            self._ledger.timers.append(Timer(following, "tick", gate.dag))
        return None if gate.paused else tick

    def ticked(self, gate: GateWork, tick: datetime) -> None:
        """Start the run of a tick."""
        cause = f"its time came: {tick.isoformat()}"
        params = dict(gate.version.spec.params)
        self._make(gate, tick_key(tick), "cron", params, cause, logical_time=tick)

    def _make(
        self,
        gate: GateWork,
        run_key: str,
        kind: str,
        params: dict[str, Any],
        cause: str,
        *,
        logical_time: datetime | None = None,
        partition: str | None = None,
    ) -> NewRun:
        room = gate.active < gate.version.spec.max_active_runs and not gate.queued
        run = NewRun(
            self._take_number(),
            self._new_id(),
            gate.version,
            run_key,
            kind,
            RunState.RUNNING if room else RunState.QUEUED,
            params,
            cause,
            logical_time,
            partition,
        )
        if room:
            gate.active += 1
        else:
            gate.queued += 1
        gate.changed = True
        self._ledger.new_runs.append(run)
        return run

    def open(self, run: NewRun, stored_events: list[EventInfo] | None) -> None:
        """Complete a new run: what its tasks may know, and its first tasks if it starts now.

        Args:
            run: The run.
            stored_events: The pending events that it consumed from the store, in order, or None
                when they are too many to travel along.
        """
        fresh = {event.number: event.info for event, _ in run.consumed}
        events = None
        if stored_events is not None and len(stored_events) + len(fresh) <= INLINE_EVENTS:
            events = (*stored_events, *(fresh[number] for number in sorted(fresh)))
        if events is not None and len(encode(events)) > INLINE_EVENT_BYTES:
            events = None
        run.info = encode(
            RunInfo(
                run.number,
                str(run.run_id),
                run.version.spec.dag_id,
                run.kind,
                run.params,
                run.logical_time,
                run.partition,
                run.cause,
                self._ledger.now,
                events,
            )
        )
        if run.state is RunState.RUNNING:
            self.start(run.number, run.version, run.info)

    def start(self, number: int, version: Version, info: bytes) -> None:
        """Start a run: hand out the tasks that wait for nothing."""
        progress, steps = begin(version.plan)
        work = RunWork(number, version, progress, info, new=True)
        self._ledger.runs[number] = work
        seconds = version.spec.timeout_seconds
        if seconds is not None:
            due = self._ledger.now + timedelta(seconds=seconds)
            self._ledger.timers.append(Timer(due, "run_timeout", version.dag, number))
        self._running.take(work, steps)
        if not version.spec.tasks:
            self._running.close(work, RunState.SUCCESS)


def tick_key(tick: datetime) -> str:
    """Return the key under which a tick's run exists once."""
    return f"tick:{tick.isoformat()}"
