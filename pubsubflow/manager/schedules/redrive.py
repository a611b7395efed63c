"""Tries dead letters again."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct

from pubsubflow.errors import InvalidInput, NotFound
from pubsubflow.manager.inbox import Item, acceptable, check_key
from pubsubflow.manager.persistence.load_events import ReadEvents
from pubsubflow.manager.schedules.admission import Admission
from pubsubflow.manager.schedules.firing import Scheduling
from pubsubflow.manager.unit_of_work import GateWork, Ledger
from pubsubflow.model.revisions import check_revision, letter_revision
from pubsubflow.model.runs.params import validate_params
from pubsubflow.model.subscriptions import CHANGED, LETTER, Undelivered
from pubsubflow.model.wire.commands import Resend
from pubsubflow.store.manager_transaction import FoldTransaction, Row


class RefusedRun(Struct, frozen=True, forbid_unknown_fields=True):
    """A run that could not be made, as its dead letter tells; JSON that a person may edit.

    Attributes:
        events: Ids of the events it would have consumed.
        params: Its params; None to work them out from the events again.
    """

    dag_id: str
    run_key: str
    events: tuple[UUID, ...] = ()
    partition: str | None = None
    params: dict[str, Any] | None = None


async def find_letter(item: Item, what: Resend, transaction: FoldTransaction) -> Row | None:
    """Return the dead letter that is to be tried again; None after telling what is wrong."""
    rows = await transaction.fetch("take_dead_letter", what.number)
    if not rows:
        item.error = NotFound("dead letter", str(what.number))
        return None
    try:
        _check_unsent(what, rows[0])
    except InvalidInput as error:
        item.error = error
        return None
    return rows[0]


def _check_unsent(what: Resend, letter: Row) -> None:
    """Return if a dead letter may be sent again.

    Raises:
        InvalidInput: It was, or it is not as whoever asks has seen it.
    """
    name = f"dead letter {what.number}"
    check_revision(name, letter_revision(letter["resent_at"]), what.revisions)
    if letter["resent_at"] is not None:
        raise InvalidInput(f"{name} was sent again already")


async def take_events(items: Sequence[Item], transaction: FoldTransaction) -> None:
    """Turn dead letters that have become events into those, unless they were sent again."""
    for item in items:
        what = item.what
        if not isinstance(what, Resend) or what.events is None:
            continue
        if await find_letter(item, what, transaction) is not None:
            item.what = what.events
            if acceptable(item, what.events):
                await transaction.fetch("mark_resent", what.number)


def read_refused(payload: bytes) -> RefusedRun:
    """Return the run of a dead letter.

    Raises:
        InvalidInput: It was edited into something else.
    """
    try:
        return msgspec.json.decode(payload, type=RefusedRun)
    except msgspec.DecodeError as error:
        raise InvalidInput(
            f"the payload is not what a dead letter of a run holds: {error}"
        ) from error


class Resending:
    """Tries the dead letters of one batch again.

    Args:
        ledger: What the transaction changes.
        transaction: Reads the events of refused runs.
        scheduling: Makes runs.
        admission: Knows which exist.
        read_events: Turns rows into events.
    """

    def __init__(
        self,
        ledger: Ledger,
        transaction: FoldTransaction,
        *,
        scheduling: Scheduling,
        admission: Admission,
        read_events: ReadEvents,
    ) -> None:
        self._ledger = ledger
        self._transaction = transaction
        self._scheduling = scheduling
        self._admission = admission
        self._read_events = read_events

    async def resend(self, what: Resend, letter: Row, gate: GateWork | None) -> str | None:
        """Publish a message again, or make the run that was refused and return its id.

        Raises:
            InvalidInput: The payload was edited into something else, or the params do not fit.
        """
        payload: bytes = letter["payload"] if what.payload is None else what.payload
        run_id = None
        if letter["kind"] in ("message", "cloudevent"):
            self._ledger.republish.append((letter["subject"], payload))
        elif letter["kind"] == LETTER:
            await self._deliver(payload)
        elif letter["kind"] != "hook":
            refused = read_refused(payload)
            if refused.run_key != read_refused(letter["payload"]).run_key:
                raise InvalidInput("leave run_key as it is: it keeps the run from being made twice")
            if gate is None or not gate.present:
                raise InvalidInput(f"DAG {refused.dag_id!r} is gone")
            exist = await self._admission.existing(gate, [refused.run_key])
            run_id = exist.get(refused.run_key) or await self._make(gate, refused)
        await self._transaction.fetch("mark_resent", what.number)
        return run_id

    async def _deliver(self, payload: bytes) -> None:
        """Let a subscriber be sent an event again."""
        try:
            told = msgspec.json.decode(payload, type=Undelivered)
        except msgspec.DecodeError as error:
            raise InvalidInput(
                f"the payload is not what a dead letter of a delivery holds: {error}"
            ) from error
        if not await self._transaction.fetch("redeliver_event", told.subscription, told.event_id):
            raise InvalidInput(f"subscription {told.subscription} or event {told.event_id} is gone")
        self._ledger.republish.append((CHANGED, b""))

    async def _make(self, gate: GateWork, refused: RefusedRun) -> str:
        """Make a run that was refused; return its id. Its trail starts anew."""
        check_key(refused.partition)
        params = refused.params
        if params is not None:
            params = validate_params(gate.version.spec, params)
        start = self._scheduling.make(
            gate, "", refused.run_key, "dataset", "sent again after it was refused"
        )
        start.partition, start.params = refused.partition, params
        rows = await self._transaction.fetch("read_named_events", list(refused.events))
        places = await self._dead_places(gate, rows)
        for event in await self._read_events(rows):
            event.trail = ()
            start.fresh.extend((event, place) for place in places.get(event.number, (0,)))
            self._ledger.revived.append((event.number, gate.dag))
        self._scheduling.begin(start)
        return str(start.run_id)

    async def _dead_places(self, gate: GateWork, rows: Sequence[Row]) -> dict[int, list[int]]:
        """Return event → the places in which it is dead."""
        found: dict[int, list[int]] = {}
        ids = [row["id"] for row in rows]
        for row in await self._transaction.fetch("read_dead_places", gate.dag, ids):
            found.setdefault(row["event"], []).append(row["place"])
        return found
