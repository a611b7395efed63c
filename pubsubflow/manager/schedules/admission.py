"""Admits runs: gives them their events and params, starts them or puts them in line."""

from collections.abc import Sequence

import msgspec

from pubsubflow.errors import InvalidInput
from pubsubflow.manager.inbox import Item, check_run_key
from pubsubflow.manager.outbox.spans import trace_of_run
from pubsubflow.manager.persistence.load_events import read_infos
from pubsubflow.manager.runs.lifecycle import Running
from pubsubflow.manager.schedules.firing import Scheduling
from pubsubflow.manager.spec_cache import Versions
from pubsubflow.manager.unit_of_work import DeadLetter, Fate, GateWork, Ledger, LoggedEvent, Start
from pubsubflow.model.expressions import evaluate
from pubsubflow.model.runs.params import validate_params
from pubsubflow.model.runs.states import RunState
from pubsubflow.model.traces import Tracing
from pubsubflow.model.wire.commands import StartRun
from pubsubflow.model.wire.messages import EventInfo, RunInfo, encode
from pubsubflow.store.database import printable
from pubsubflow.store.manager_transaction import FoldTransaction

INLINE_EVENTS = 500
INLINE_EVENT_BYTES = 128 * 1024
PARAMS_EVENTS = 20_000


class Admission:
    """The last step of every run that is made, whatever made it.

    Args:
        ledger: What the transaction changes.
        transaction: Reads what runs consume.
        versions: DAG versions.
        running: Starts runs.
        scheduling: Makes runs.
        max_loops: How often one DAG may stand in the trail that leads to its run.
        tracing: Draws the trace contexts of runs.
    """

    def __init__(
        self,
        ledger: Ledger,
        transaction: FoldTransaction,
        versions: Versions,
        *,
        running: Running,
        scheduling: Scheduling,
        max_loops: int,
        tracing: Tracing,
    ) -> None:
        self._ledger = ledger
        self._transaction = transaction
        self._versions = versions
        self._running = running
        self._scheduling = scheduling
        self._max_loops = max_loops
        self._tracing = tracing
        self._refused: list[GateWork] = []

    @property
    def waiting(self) -> list[Start]:
        """Return the runs that are to be admitted."""
        return [
            start
            for start in self._ledger.starts.values()
            if not start.forming and start.state is None and start.refused is None
        ]

    async def asked(self, gate: GateWork, call: StartRun, item: Item) -> str:
        """Make a run because somebody asks for it; return its id, or that of one under its key.

        Raises:
            InvalidInput: The params do not fit the DAG, or the key is too long.
        """
        start = self._scheduling.make(
            gate, "", "", "manual", printable(call.cause), logical_time=call.logical_time
        )
        item.ids = item.ids or [start.run_id]
        start.run_id = item.ids[0]
        start.run_key = call.run_key or f"manual:{start.run_id}"
        if call.run_key is not None or item.tried:
            known = await self.existing(gate, [start.run_key])
            if known:
                return known[start.run_key]
        check_run_key(call.run_key)
        start.params = validate_params(gate.version.spec, call.params)
        start.partition = None if call.partition is None else printable(call.partition)
        start.asked_by = item.trace
        self._scheduling.begin(start)
        return str(start.run_id)

    async def existing(self, gate: GateWork, run_keys: Sequence[str]) -> dict[str, str]:
        """Return key → run for those that have a run, made in this batch or before."""
        asked = set(run_keys)
        rows = await self._transaction.fetch(
            "find_run_keys", [gate.dag] * len(run_keys), list(run_keys)
        )
        found = {row["run_key"]: str(row["run_id"]) for row in rows}
        for start in self._ledger.starts.values():
            if start.gate is gate and start.run_key in asked and start.refused is None:
                found[start.run_key] = str(start.run_id)
        return found

    def take_refused(self) -> list[GateWork]:
        """Return the gates of runs that were refused since the last call."""
        gates, self._refused = self._refused, []
        return gates

    async def admit(self) -> None:
        """Admit all runs that wait for it, in the order in which they were made."""
        starts = self.waiting
        if not starts:
            return
        await self._transaction.write("expire_pending", self._ledger.expiries)
        self._ledger.expiries = []
        stored = await self._read_stored(starts)
        for start in starts:
            start.gate.coming -= 1
            events = stored.get(start.number, [])
            await self._admit_one(start, events, whole=_fits(start))

    async def _read_stored(self, starts: Sequence[Start]) -> dict[int, list[LoggedEvent]]:
        """Return the events that runs consume from the store, as far as they are not too many."""
        drained = [
            (start.gate.dag, cell, place, start.number)
            for start in starts
            if _fits(start)
            for cell, place in start.drained
        ]
        rows = await self._transaction.fetch_rows("read_consumable", drained)
        collected = [start.number for start in starts if start.stored]
        if collected:
            limit = PARAMS_EVENTS * len(collected)
            rows += await self._transaction.fetch("read_collected_events", collected, limit)
        found: dict[int, dict[int, LoggedEvent]] = {}
        events = await read_infos(rows, self._versions, self._transaction)
        for row, event in zip(rows, events, strict=True):
            found.setdefault(row["consumer"], {})[row["id"]] = event
        return {number: list(known.values()) for number, known in found.items()}

    async def _admit_one(self, start: Start, stored: list[LoggedEvent], *, whole: bool) -> None:
        known = {event.number: event for event in stored}
        known.update((event.number, event) for event, _ in start.fresh)
        events = [event for _, event in sorted(known.items())]
        dag = start.gate.dag
        trail = longest_trail(events, dag)
        if trail.count(dag) >= self._max_loops:
            await self._refuse(start, events, "loop", await self._circle(trail, dag))
            return
        infos = [event.info for event in events]
        try:
            params = self._params(start, infos if whole else None)
        except InvalidInput as error:
            await self._refuse(start, events, "params", str(error))
            return
        start.params = params
        start.trace = trace_of_run(self._tracing, start.asked_by, infos)
        start.info = self._info(start, inline_events(infos) if whole else None, trail)
        self._place(start)

    def _params(self, start: Start, events: list[EventInfo] | None) -> dict[str, object]:
        spec = start.gate.version.spec
        if start.params is not None:
            return start.params
        if not spec.params_from or (start.kind == "cron" and events == []):
            return validate_params(spec, None)
        if events is None:
            raise InvalidInput(f"more than {PARAMS_EVENTS} events for one run's params")
        return validate_params(spec, evaluate(spec.params_from, events, start.partition))

    @staticmethod
    def _info(start: Start, events: tuple[EventInfo, ...] | None, trail: tuple[int, ...]) -> bytes:
        return encode(
            RunInfo(
                start.number,
                str(start.run_id),
                start.gate.version.spec.dag_id,
                start.kind,
                start.params or {},
                start.logical_time,
                start.partition,
                start.cause,
                start.created_at,
                events,
                trail,
                start.trace,
            )
        )

    def _place(self, start: Start) -> None:
        """Start a run, or put it in line when its DAG is at its limit."""
        gate = start.gate
        gate.changed = True
        if gate.active < gate.version.spec.max_active_runs and not gate.queued:
            self._start(start)
        else:
            start.state = RunState.QUEUED
            gate.queued += 1

    def _start(self, start: Start) -> None:
        start.state = RunState.RUNNING
        start.gate.active += 1
        self._running.start(start.number, start.gate.version, start.info)

    def start_queued(self, gate: GateWork) -> None:
        """Start runs that this transaction made and that are not in line in the store yet."""
        for start in self._ledger.starts.values():
            if gate.active >= gate.version.spec.max_active_runs or not gate.queued:
                return
            if start.gate is gate and start.state is RunState.QUEUED:
                gate.queued -= 1
                self._start(start)

    async def _circle(self, trail: Sequence[int], dag: int) -> str:
        """Name the circle that a DAG's events run in."""
        last = len(trail) - 1 - list(reversed(trail)).index(dag)
        circle = [*trail[last:], dag]
        rows = await self._transaction.fetch("name_dags", sorted(set(circle)))
        names = {row["id"]: row["dag_id"] for row in rows}
        path = " → ".join(names[number] for number in circle)
        return f"after {trail.count(dag)} rounds of {path} the circle was stopped"

    async def _refuse(
        self, start: Start, events: Sequence[LoggedEvent], kind: str, reason: str
    ) -> None:
        """Make no run: its events are dead, and a letter tells why."""
        start.refused = reason = printable(reason)
        self._refused.append(start.gate)
        spec = start.gate.version.spec
        letter = {
            "dag_id": spec.dag_id,
            "run_key": start.run_key,
            "partition": start.partition,
            "events": [str(event.event_id) for event in events],
            "params": start.params,
        }
        self._ledger.dead_letters.append(
            DeadLetter(kind, spec.dag_id, start.gate.dag, msgspec.json.encode(letter), reason)
        )
        for event, place in start.fresh:
            self._ledger.fates.append(
                Fate(event, start.gate.dag, place, start.cell, "dead", reason)
            )
        self._ledger.drops.extend(
            (start.gate.dag, cell, place, "dead", reason) for cell, place in start.drained
        )
        if start.stored:
            await self._transaction.fetch(
                "refuse_collected", [start.number], [start.gate.dag], [start.cell], [reason]
            )


def longest_trail(events: Sequence[LoggedEvent], dag: int) -> tuple[int, ...]:
    """Return the trail of a run that consumes events: the one in which its DAG stands most."""
    trails = (event.trail for event in events)
    return max(trails, key=lambda trail: (trail.count(dag), len(trail)), default=())


def inline_events(infos: Sequence[EventInfo]) -> tuple[EventInfo, ...] | None:
    """Return the events of a run as they travel with its tasks, or None when they are too many."""
    fits = len(infos) <= INLINE_EVENTS and len(encode(infos)) <= INLINE_EVENT_BYTES
    return tuple(infos) if fits else None


def _fits(start: Start) -> bool:
    """Whether a run's events can all be looked at."""
    limit = PARAMS_EVENTS if start.gate.version.spec.params_from else INLINE_EVENTS
    return start.drained_count <= limit
