"""Which cells of a DAG an event touches: the whole, or those of its partition key."""

from collections.abc import Iterable

from pubsubflow.errors import InvalidInput
from pubsubflow.manager.inbox import check_key
from pubsubflow.manager.unit_of_work import GateWork, LoggedEvent
from pubsubflow.model.schedule.conditions import Input
from pubsubflow.model.schedule.partitions import map_key

WHOLE = ""


def cell_keys(gate: GateWork, event: LoggedEvent) -> dict[str, list[tuple[Input, str]]]:
    """Return the cells that an event touches: key → places with the event's own key there.

    Raises:
        InvalidInput: Its partition key is missing or of the wrong kind.
    """
    schedule = gate.version.schedule
    places = gate.version.places(event.info.dataset)
    if schedule is None or schedule.partitioning is None:
        return {WHOLE: [(place, "") for place in places]}
    if not event.info.partition:
        raise InvalidInput("the event has no partition")
    check_key(event.info.partition)
    found: dict[str, list[tuple[Input, str]]] = {}
    for place in places:
        mapper = schedule.partitioning.mapper(place.uri)
        for key, own in map_key(mapper, event.info.partition):
            found.setdefault(key, []).append((place, own))
    return found


def event_cells(gate: GateWork, event: LoggedEvent) -> Iterable[str]:
    """Return the cells that an event touches; none when its partition does not fit."""
    try:
        return cell_keys(gate, event)
    except InvalidInput:
        return ()
