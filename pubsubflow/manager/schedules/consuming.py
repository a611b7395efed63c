"""Routing of events to conditions, and consumption of pending events by runs."""

from collections.abc import Iterable
from datetime import UTC, datetime

from msgspec import Struct

from pubsubflow.errors import InvalidInput
from pubsubflow.manager.chosen_keys import check_key
from pubsubflow.manager.unit_of_work import (
    DroppedInput,
    EventOutcome,
    ExpiredInput,
    UnitOfWork,
)
from pubsubflow.manager.working_state import (
    ConditionWork,
    ConsumedEvent,
    LockedDag,
    LoggedEvent,
    RunDraft,
)
from pubsubflow.model.schedule.condition_state import expiry
from pubsubflow.model.schedule.conditions import DatasetInput
from pubsubflow.model.schedule.partitions import Partitioning, map_key

WHOLE = ""
"""The key of the condition as a whole, of a schedule without partitions."""
KeyedInput = tuple[DatasetInput, str]
"""An input, and the event's own partition key there."""


class Routing(Struct, frozen=True):
    """The inputs of a DAG that an event matches, filters apart.

    Attributes:
        inputs: Partition key → inputs of the condition for that partition.
        refusal: Why the event reaches none: its partition key is missing or of the wrong kind.
    """

    event: LoggedEvent
    dag: LockedDag
    inputs: dict[str, list[KeyedInput]]
    refusal: str | None = None


def route(event: LoggedEvent, dag: LockedDag) -> Routing:
    """Return which inputs of a DAG an event reaches."""
    schedule = dag.version.schedule
    matched = dag.version.inputs_for(event.info.dataset)
    if schedule is None or schedule.partitioning is None:
        return Routing(event, dag, {WHOLE: [(each, "") for each in matched]})
    try:
        return Routing(event, dag, _by_partition(event, matched, schedule.partitioning))
    except InvalidInput as error:
        return Routing(event, dag, {}, str(error))


def _by_partition(
    event: LoggedEvent, matched: Iterable[DatasetInput], partitioning: Partitioning
) -> dict[str, list[KeyedInput]]:
    if not event.info.partition:
        raise InvalidInput("the event has no partition")
    # It becomes part of a run key, for which there is an index.
    check_key(event.info.partition)
    found: dict[str, list[KeyedInput]] = {}
    for each in matched:
        for key, own in map_key(partitioning.mapper(each.uri), event.info.partition):
            found.setdefault(key, []).append((each, own))
    return found


class Consumption:
    """Takes pending events out of the inputs of conditions; writes nothing but the unit of work."""

    def __init__(self, uow: UnitOfWork) -> None:
        self._uow = uow

    def consume(
        self, dag: LockedDag, condition: ConditionWork, inputs: Iterable[int], draft: RunDraft
    ) -> None:
        """Give a run what is pending in inputs."""
        for number in inputs:
            within_seconds = dag.version.inputs[number].within_seconds
            if within_seconds is not None:
                self._expire(dag, condition, number, expiry(within_seconds, condition.state))
            draft.events.extend(
                [ConsumedEvent(event, number) for event in condition.new_events[number]]
            )
            condition.new_events[number] = []
            if condition.stored[number]:
                draft.stored_inputs.append((condition.key, number))
                draft.stored_events += condition.stored[number]
                condition.stored[number] = 0

    def _expire(self, dag: LockedDag, condition: ConditionWork, number: int, limit: float) -> None:
        """Take out of an input what is older than a limit, in seconds since 1970."""
        before = datetime.fromtimestamp(limit, UTC)
        if condition.stored[number]:
            expired = ExpiredInput(dag.id, condition.key, number, before)
            self._uow.schedule.expired.append(expired)
        kept = []
        for event in condition.new_events[number]:
            if event.moment < before:
                reason = "too old when the condition held"
                self.record(dag, event, number, condition.key, "expired", reason)
            else:
                kept.append(event)
        condition.new_events[number] = kept

    def drop(
        self,
        dag: LockedDag,
        condition: ConditionWork,
        inputs: Iterable[int],
        outcome: str,
        reason: str,
    ) -> None:
        """Take everything out of inputs."""
        for number in inputs:
            for event in condition.new_events[number]:
                self.record(dag, event, number, condition.key, outcome, reason)
            condition.new_events[number] = []
            if condition.stored[number]:
                dropped = DroppedInput(dag.id, condition.key, number, outcome, reason)
                self._uow.schedule.dropped.append(dropped)
                condition.stored[number] = 0

    def record(
        self, dag: LockedDag, event: LoggedEvent, number: int, key: str, outcome: str, reason: str
    ) -> None:
        """Note what became of an event that no run consumes."""
        found = EventOutcome(event, dag.id, number, key, outcome, reason)
        self._uow.schedule.outcomes.append(found)
