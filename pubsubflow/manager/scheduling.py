"""Folds events, ticks and requests into runs."""

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

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

INLINE_EVENTS = 500


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
        if not gate.paused:
            self.offer(gate, event)
        elif gate.version.spec.on_pause == "hold":
            self._hold(gate, event, gate.version.places[event.info.dataset])

    def _hold(self, gate: GateWork, event: LoggedEvent, places: Iterable[int]) -> None:
        for place in places:
            gate.fresh[place].append(event)
        gate.changed = True

    def offer(self, gate: GateWork, event: LoggedEvent) -> None:
        """Add one event to the DAG's places and make the run that then fires, if any."""
        condition = gate.version.spec.condition
        places = gate.version.places.get(event.info.dataset)
        if condition is None or not places:
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

    def asked(self, gate: GateWork, call: StartRun) -> NewRun:
        """Start a run because somebody asks for it.

        Raises:
            InvalidInput: The params do not fit the DAG.
        """
        params = validate_params(gate.version.spec, call.params)
        key = call.run_key or f"manual:{self._new_id()}"
        return self._make(gate, key, "manual", params, call.cause, logical_time=call.logical_time)

    def tick(self, gate: GateWork, timer: Timer) -> None:
        """A DAG's time has come: start its run and set the next tick.

        Without catch-up only the latest of several missed ticks starts a run.
        """
        spec = gate.version.spec
        if spec.timetable is None:
            return
        tick, now = timer.due_at, self._ledger.now
        following = next_tick(spec.timetable, tick, spec.start, spec.end)
        while following is not None and following <= now and not spec.catchup:
            tick, following = following, next_tick(spec.timetable, following, spec.start, spec.end)
        if not gate.paused:
            self._make(
                gate,
                f"tick:{tick.isoformat()}",
                "cron",
                dict(spec.params),
                f"its time came: {tick.isoformat()}",
                logical_time=tick,
            )
        if following is not None:
            self._ledger.timers.append(Timer(following, "tick", gate.dag))

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
        fresh = {id(event): event.info for event, _ in run.consumed}
        events = None if stored_events is None else (*stored_events, *fresh.values())
        if events is not None and len(events) > INLINE_EVENTS:
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
