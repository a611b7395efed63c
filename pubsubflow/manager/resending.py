"""Tries dead letters again."""

from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct

from pubsubflow.errors import InvalidInput, NotFound
from pubsubflow.manager.inputs import Item
from pubsubflow.manager.ledger import GateWork, Ledger, LoggedEvent
from pubsubflow.manager.scheduling import Scheduling
from pubsubflow.model.calls import Resend
from pubsubflow.model.params import validate_params
from pubsubflow.store.fold import FoldTransaction, Row


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
    if rows[0]["resent_at"] is not None:
        item.error = InvalidInput(f"dead letter {what.number} was sent again already")
        return None
    return rows[0]


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


def make_again(
    gate: GateWork,
    refused: RefusedRun,
    events: list[LoggedEvent],
    places: dict[int, list[int]],
    *,
    ledger: Ledger,
    scheduling: Scheduling,
) -> str:
    """Make a run that was refused; return its id. Its trail starts anew.

    Args:
        gate: Its DAG's.
        refused: What it was.
        events: What it consumes.
        places: Event → the places in which it was when the run was refused.
        ledger: What the transaction changes.
        scheduling: Makes runs.

    Raises:
        InvalidInput: The params do not fit.
    """
    start = scheduling.make(gate, "", refused.run_key, "dataset", "sent again after it was refused")
    start.partition = refused.partition
    if refused.params is not None:
        start.params = validate_params(gate.version.spec, refused.params)
    for event in events:
        event.trail = ()
        start.fresh.extend((event, place) for place in places.get(event.number, (0,)))
    ledger.revived.extend((event.number, gate.dag) for event in events)
    scheduling.begin(start)
    return str(start.run_id)
