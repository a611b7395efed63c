"""Admission of runs: gives them their events and params, then starts, queues or refuses them."""

from collections.abc import Sequence

import msgspec

from pubsubflow.errors import InvalidInput
from pubsubflow.manager.persistence.load import load_events
from pubsubflow.manager.runs.callbacks import deadline_timers
from pubsubflow.manager.runs.lifecycle import RunLifecycle
from pubsubflow.manager.schedules.event_params import PARAMS_EVENTS, run_params
from pubsubflow.manager.spec_cache import SpecCache
from pubsubflow.manager.traces import trace_of_run
from pubsubflow.manager.unit_of_work import (
    DeadLetter,
    DroppedInput,
    EventOutcome,
    UnitOfWork,
)
from pubsubflow.manager.working_state import (
    INLINE_EVENTS,
    LockedDag,
    LoggedEvent,
    RunDraft,
    inline_events,
    longest_ancestry,
)
from pubsubflow.model.runs.states import RunState, advance_state
from pubsubflow.model.source.version_choice import takes_canary
from pubsubflow.model.traces import Tracing
from pubsubflow.model.wire.messages import RunInfo, encode
from pubsubflow.store.batches.manager_transaction import ManagerTransaction, Row
from pubsubflow.store.database import printable


class Admission:
    """The last step of every run that is made, whatever made it.

    Args:
        uow: What the transaction changes.
        transaction: Reads the events that runs consume.
        specs: DAG versions.
        lifecycle: Starts runs.
        max_loops: How often one DAG may occur in the ancestry of its run.
        tracing: Draws the trace contexts of runs.

    Attributes:
        refused: DAGs of runs that were refused, until they are counted.
    """

    def __init__(
        self,
        uow: UnitOfWork,
        transaction: ManagerTransaction,
        specs: SpecCache,
        *,
        lifecycle: RunLifecycle,
        max_loops: int,
        tracing: Tracing,
    ) -> None:
        self._uow = uow
        self._transaction = transaction
        self._specs = specs
        self._lifecycle = lifecycle
        self._max_loops = max_loops
        self._tracing = tracing
        self.refused: list[LockedDag] = []

    async def existing(self, dag: LockedDag, run_keys: Sequence[str]) -> dict[str, str]:
        """Return run key → run id for those that exist, made in this batch or before."""
        wanted = set(run_keys)
        rows = await self._transaction.fetch(
            "find_runs_by_key", [dag.id] * len(run_keys), list(run_keys)
        )
        found = {row["run_key"]: str(row["run_id"]) for row in rows}
        # Drafts of this batch have no row yet.
        for draft in self._uow.schedule.drafts.values():
            if draft.dag is dag and draft.run_key in wanted and draft.refused is None:
                found[draft.run_key] = str(draft.run_id)
        return found

    async def admit(self) -> None:
        """Admit the runs that wait for it, in the order in which they were made."""
        drafts = [
            draft
            for draft in self._uow.schedule.drafts.values()
            if not draft.collecting and draft.state is None and draft.refused is None
        ]
        stored: dict[int, list[LoggedEvent]] = {}
        if any(draft.stored or draft.stored_inputs for draft in drafts):
            stored = await self._read_stored(drafts)
        for draft in drafts:
            draft.dag.unadmitted -= 1
            await self._admit(draft, stored.get(draft.id, ()))

    async def _read_stored(self, drafts: Sequence[RunDraft]) -> dict[int, list[LoggedEvent]]:
        """Return the stored events that runs consume, of those that consume not too many."""
        # What is too old must be gone before, or a run would see it.
        expired = [msgspec.structs.astuple(each) for each in self._uow.schedule.expired]
        await self._transaction.write("expire_pending_events", expired)
        self._uow.schedule.expired = []
        pending = [
            (draft.dag.id, key, number, draft.id)
            for draft in drafts
            if _countable(draft)
            for key, number in draft.stored_inputs
        ]
        rows = await self._transaction.fetch_rows("read_events_to_consume", pending)
        collected = [draft.id for draft in drafts if draft.stored]
        if collected:
            limit = PARAMS_EVENTS * len(collected)
            rows += await self._transaction.fetch("read_collected_events", collected, limit)
        return await self._by_consumer(rows)

    async def _by_consumer(self, rows: Sequence[Row]) -> dict[int, list[LoggedEvent]]:
        found: dict[int, dict[int, LoggedEvent]] = {}
        events = await load_events(rows, self._specs, self._transaction)
        for row, event in zip(rows, events, strict=True):
            found.setdefault(row["consumer"], {})[row["id"]] = event
        return {run_id: list(known.values()) for run_id, known in found.items()}

    async def _admit(self, draft: RunDraft, stored: Sequence[LoggedEvent]) -> None:
        known = {event.id: event for event in stored}
        known.update((each.event.id, each.event) for each in draft.events)
        events = [event for _, event in sorted(known.items())]
        dag = draft.dag
        ancestry = draft.ancestry
        if any(event.ancestry for event in events):
            ancestry = longest_ancestry(events, dag.id)
        if ancestry.count(dag.id) >= self._max_loops:
            await self._refuse(draft, events, "loop", await self._describe_loop(ancestry, dag.id))
            return
        # Only where stored events are too many to be read are some missing here.
        whole = not draft.stored_events or _countable(draft)
        if draft.params is None and not dag.version.takes_params:
            draft.params = {}
        elif draft.params is None:
            try:
                draft.params = run_params(draft, [each.info for each in events] if whole else None)
            except InvalidInput as error:
                await self._refuse(draft, events, "params", str(error))
                return
        causes = [event.info.trace for event in events]
        if self._tracing.on or draft.requested_by is not None or any(causes):
            draft.trace = trace_of_run(self._tracing, draft.requested_by, causes)
        draft.info = RunInfo(
            draft.id,
            str(draft.run_id),
            dag.version.spec.dag_id,
            draft.kind,
            draft.params,
            draft.logical_time,
            draft.partition,
            draft.cause,
            draft.created_at,
            inline_events(events, always=dag.version.check is not None) if whole else None,
            ancestry,
            draft.trace,
        )
        draft.encoded_info = encode(draft.info)
        draft.state = dag.admit(ahead=draft.apart and not dag.run_limits)
        dag.apart += draft.apart and draft.state is RunState.RUNNING
        # Not earlier: until here a run may still be refused, or given more events.
        if dag.canary is not None and takes_canary(
            dag.id, dag.canary.version.id, draft.run_key, dag.canary.share
        ):
            draft.canary = dag.canary
        taken = draft.canary or dag
        if taken.version.spec.deadlines:
            self._uow.timers.extend(deadline_timers(draft))
        if draft.state is RunState.RUNNING:
            self._lifecycle.start(
                draft.id, taken.version, draft.encoded_info, draft.info, source=taken.source
            )

    def start_queued(self, dag: LockedDag) -> None:
        """Start runs that this transaction made and queued, where there is room for them.

        They come after those that were queued before, which are started first.
        """
        for draft in self._uow.schedule.drafts.values():
            if dag.active - dag.apart >= dag.version.spec.max_active_runs or not dag.queued:
                return
            if draft.dag is dag and draft.state is RunState.QUEUED:
                dag.start_queued()
                draft.state = advance_state(draft.state, RunState.RUNNING)
                taken = draft.canary or dag
                self._lifecycle.start(
                    draft.id, taken.version, draft.encoded_info, draft.info, source=taken.source
                )

    async def check_started(self, dag: LockedDag, ancestry: tuple[int, ...]) -> None:
        """Check a run that a task starts.

        Raises:
            InvalidInput: DAGs start each other in a circle.
        """
        if ancestry.count(dag.id) >= self._max_loops:
            raise InvalidInput(await self._describe_loop(ancestry, dag.id))

    async def _describe_loop(self, ancestry: Sequence[int], dag: int) -> str:
        """Name the circle of DAGs that set each other off."""
        last = len(ancestry) - 1 - list(reversed(ancestry)).index(dag)
        circle = [*ancestry[last:], dag]
        rows = await self._transaction.fetch("read_dag_ids", sorted(set(circle)))
        names = {row["id"]: row["dag_id"] for row in rows}
        path = " → ".join(names[each] for each in circle)
        return f"after {ancestry.count(dag)} rounds of {path} the circle was stopped"

    async def _refuse(
        self, draft: RunDraft, events: Sequence[LoggedEvent], kind: str, reason: str
    ) -> None:
        """Make no run: its events are dead, and a dead letter says why."""
        draft.refused = reason = printable(reason)
        self.refused.append(draft.dag)
        dag, key = draft.dag, draft.condition_key
        letter = {
            "dag_id": dag.version.spec.dag_id,
            "run_key": draft.run_key,
            "partition": draft.partition,
            "events": [event.info.event_id for event in events],
            "params": draft.params,
        }
        payload = msgspec.json.encode(letter)
        dead_letter = DeadLetter(kind, dag.version.spec.dag_id, dag.id, payload, reason)
        self._uow.outbox.dead_letters.append(dead_letter)
        self._uow.schedule.outcomes.extend(
            EventOutcome(each.event, dag.id, each.input, key, "dead", reason)
            for each in draft.events
        )
        self._uow.schedule.dropped.extend(
            DroppedInput(dag.id, stored_key, number, "dead", reason)
            for stored_key, number in draft.stored_inputs
        )
        if draft.stored:
            await self._transaction.fetch(
                "delete_refused_runs", [draft.id], [dag.id], [key], [reason]
            )


def _countable(draft: RunDraft) -> bool:
    """Whether a run consumes so few events that all of them are read."""
    limit = PARAMS_EVENTS if draft.dag.version.spec.params_from else INLINE_EVENTS
    return draft.stored_events <= limit
