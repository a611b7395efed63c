"""Redrive of dead letters: messages are published again, refused runs are made after all."""

from collections.abc import Sequence
from typing import Any, TypeVar
from uuid import UUID

import msgspec
from msgspec import Struct

from pubsubflow.errors import InvalidInput, NotFound
from pubsubflow.manager.chosen_keys import check_key
from pubsubflow.manager.persistence.load import load_events
from pubsubflow.manager.schedules.admission import Admission
from pubsubflow.manager.schedules.firing import Scheduler
from pubsubflow.manager.spec_cache import SpecCache
from pubsubflow.manager.unit_of_work import OutgoingMessage, UndeadEvent, UnitOfWork
from pubsubflow.manager.working_state import ConsumedEvent, LockedDag
from pubsubflow.model.cel.expressions import evaluate
from pubsubflow.model.revisions import check_revision, dead_letter_revision
from pubsubflow.model.runs.params import validate_params
from pubsubflow.model.subscriptions import CHANGED, DEAD_LETTER_KIND, Undelivered
from pubsubflow.model.wire.commands import RedriveDeadLetter, RedrivePlan
from pubsubflow.store.batches.manager_transaction import ManagerTransaction, Row

T = TypeVar("T")


class RefusedRun(Struct, frozen=True, forbid_unknown_fields=True):
    """A run that was refused, as its dead letter has it: JSON that a person may edit.

    Attributes:
        events: Ids of the events that it would have consumed.
        params: Its params; None to compute them from the events again.
    """

    dag_id: str
    run_key: str
    events: tuple[UUID, ...] = ()
    partition: str | None = None
    params: dict[str, Any] | None = None


class Redrive:
    """Redrives the dead letters of one batch.

    Args:
        uow: What the transaction changes.
        transaction: Locks dead letters; reads the events of refused runs.
        specs: DAG versions.
        scheduler: Makes runs.
        admission: Knows which exist.
    """

    def __init__(
        self,
        uow: UnitOfWork,
        transaction: ManagerTransaction,
        specs: SpecCache,
        *,
        scheduler: Scheduler,
        admission: Admission,
    ) -> None:
        self._uow = uow
        self._transaction = transaction
        self._specs = specs
        self._scheduler = scheduler
        self._admission = admission

    async def lock(self, command: RedriveDeadLetter) -> Row:
        """Lock a dead letter and return it.

        Raises:
            NotFound: It does not exist.
            InvalidInput: It was redriven or discarded, or has changed since its sender read it.
        """
        rows = await self._transaction.fetch("lock_dead_letter", command.dead_letter)
        if not rows:
            raise NotFound("dead letter", str(command.dead_letter))
        name = f"dead letter {command.dead_letter}"
        revision = dead_letter_revision(rows[0]["resent_at"], rows[0]["discarded_at"])
        check_revision(name, revision, command.revisions)
        if rows[0]["resent_at"] is not None:
            raise InvalidInput(f"{name} was sent again already")
        if rows[0]["discarded_at"] is not None:
            raise InvalidInput(f"{name} was discarded")
        return rows[0]

    async def mark(self, command: RedriveDeadLetter) -> None:
        """Mark a dead letter as redriven."""
        await self._transaction.fetch("mark_dead_letter_resent", command.dead_letter)

    async def resend(
        self, command: RedriveDeadLetter, letter: Row, dag: LockedDag | None
    ) -> str | None:
        """Publish a message again, or make the run that was refused and return its id.

        Args:
            command: What to redrive, perhaps edited.
            letter: The dead letter, which is locked.
            dag: The DAG of a refused run, locked.

        Raises:
            InvalidInput: The payload was edited into something else, or the params do not fit.
        """
        payload: bytes = letter["payload"] if command.payload is None else command.payload
        run_id = None
        if letter["kind"] in ("message", "cloudevent"):
            self._uow.outbox.messages.append(OutgoingMessage(letter["subject"], payload))
        elif letter["kind"] == DEAD_LETTER_KIND:
            await self._deliver(payload)
        elif letter["kind"] != "hook":
            refused, present = _checked(payload, letter, dag)
            existing = await self._admission.existing(present, [refused.run_key])
            run_id = existing.get(refused.run_key) or await self._make(present, refused)
        await self.mark(command)
        return run_id

    async def plan(
        self, command: RedriveDeadLetter, letter: Row, dag: LockedDag | None
    ) -> RedrivePlan:
        """Return what `resend` would do; nothing is changed.

        Args:
            command: What to redrive, perhaps edited.
            letter: The dead letter, which is locked.
            dag: The DAG of a refused run, locked.

        Raises:
            InvalidInput: As `resend`.
        """
        payload: bytes = letter["payload"] if command.payload is None else command.payload
        if letter["kind"] == "hook":
            count = 0 if command.events is None else len(command.events.events)
            return RedrivePlan(f"{count} event{'s' * (count != 1)} would be recorded")
        if letter["kind"] in ("message", "cloudevent"):
            return RedrivePlan(f"it would be published to {letter['subject']} again")
        if letter["kind"] == DEAD_LETTER_KIND:
            subscription = _read_undelivered(payload).subscription
            return RedrivePlan(f"it would be delivered to subscription {subscription} again")
        refused, present = _checked(payload, letter, dag)
        check_key(refused.partition)
        existing = await self._admission.existing(present, [refused.run_key])
        if refused.run_key in existing:
            run_id = existing[refused.run_key]
            return RedrivePlan(f"run {run_id} exists already", run_id=run_id)
        params = await self._params(present, refused)
        return RedrivePlan(f"a run of {refused.dag_id} would start", params)

    async def _params(self, dag: LockedDag, refused: RefusedRun) -> dict[str, Any]:
        """Return the params that a refused run would get now."""
        spec = dag.version.spec
        if refused.params is not None or not spec.params_from:
            return validate_params(spec, refused.params)
        rows = await self._transaction.fetch("read_events_by_id", list(refused.events))
        events = await load_events(rows, self._specs, self._transaction)
        found = evaluate(spec.params_from, [each.info for each in events], refused.partition)
        return validate_params(spec, found)

    async def _deliver(self, payload: bytes) -> None:
        """Queue an event for its subscriber once more."""
        undelivered = _read_undelivered(payload)
        subscription, event_id = undelivered.subscription, undelivered.event_id
        if not await self._transaction.fetch("redeliver_event", subscription, event_id):
            raise InvalidInput(f"subscription {subscription} or event {event_id} is gone")
        self._uow.outbox.messages.append(OutgoingMessage(CHANGED))

    async def _make(self, dag: LockedDag, refused: RefusedRun) -> str:
        """Make a run that was refused; return its id. Its ancestry starts anew."""
        check_key(refused.partition)
        params = refused.params
        if params is not None:
            params = validate_params(dag.version.spec, params)
        draft = self._scheduler.draft(
            dag, refused.run_key, "dataset", "sent again after it was refused"
        )
        draft.partition, draft.params = refused.partition, params
        rows = await self._transaction.fetch("read_events_by_id", list(refused.events))
        inputs = await self._dead_inputs(dag, rows)
        for event in await load_events(rows, self._specs, self._transaction):
            # A person has looked at the circle: the count of its rounds starts anew.
            event.ancestry = ()
            draft.events.extend(
                ConsumedEvent(event, number) for number in inputs.get(event.id, (0,))
            )
            self._uow.schedule.undead.append(UndeadEvent(event.id, dag.id))
        self._scheduler.begin(draft)
        return str(draft.run_id)

    async def _dead_inputs(self, dag: LockedDag, rows: Sequence[Row]) -> dict[int, list[int]]:
        """Return event → the inputs for which it is dead."""
        found: dict[int, list[int]] = {}
        ids = [row["id"] for row in rows]
        for row in await self._transaction.fetch("read_dead_inputs", dag.id, ids):
            found.setdefault(row["event"], []).append(row["input"])
        return found


def _checked(payload: bytes, letter: Row, dag: LockedDag | None) -> tuple[RefusedRun, LockedDag]:
    """Return a refused run as it is to be made, and its DAG.

    Raises:
        InvalidInput: It was edited into something else, or the DAG is gone.
    """
    refused = _read_refused(payload)
    if refused.run_key != _read_refused(letter["payload"]).run_key:
        raise InvalidInput("leave run_key as it is: it keeps the run from being made twice")
    if dag is None or not dag.present:
        raise InvalidInput(f"DAG {refused.dag_id!r} is gone")
    return refused, dag


def _read_undelivered(payload: bytes) -> Undelivered:
    return _read(payload, Undelivered, "delivery")


def _read_refused(payload: bytes) -> RefusedRun:
    return _read(payload, RefusedRun, "run")


def _read(payload: bytes, kind: type[T], what: str) -> T:
    try:
        return msgspec.json.decode(payload, type=kind)
    except msgspec.DecodeError as error:
        raise InvalidInput(
            f"the payload is not what a dead letter of a {what} holds: {error}"
        ) from error
