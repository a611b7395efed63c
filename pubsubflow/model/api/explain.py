"""JSON types of explanations: why no run starts, why a run exists, what an event's outcomes are."""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from msgspec import Struct, field

from pubsubflow.model.api.resources import EventView, RunView
from pubsubflow.model.schedule.explain import Clause, Parts, Reason
from pubsubflow.model.wire.commands import STARTED_BY_TASK, PlannedRun


class WaitingInput(Struct, frozen=True, kw_only=True):
    """An input of a schedule, and its pending events.

    Attributes:
        place: Index of the input in the expression.
        dataset: URI, or a pattern.
        where: The filter.
        holds: Whether it is satisfied.
        pending: Events that no run has consumed; over all partitions unless one is given.
        at_least: How many events it requires.
        missing: How many of those are missing.
        too_old: How many of the pending are older than `within_seconds` allows.
        parts: For a window that is rolled up, which of its parts have an event.
        reachable: False if no key of its events can count for the partition.
        waiting_since: When the oldest pending event was recorded.
        last_event_id, last_event_at: The newest event of its datasets, consumed or not.
        filtered, expired, skipped: Number of events with that outcome in the last 24 hours.
        last_reason: Why the last of those did not count.
    """

    place: int
    dataset: str
    pattern: bool = False
    where: str | None = None
    holds: bool
    pending: int
    at_least: int = 1
    missing: int
    within_seconds: float | None = None
    too_old: int = 0
    parts: Parts | None = None
    reachable: bool = True
    waiting_since: datetime | None = None
    last_event_id: str | None = None
    last_event_at: datetime | None = None
    filtered: int = 0
    expired: int = 0
    skipped: int = 0
    last_reason: str | None = None


class WaitingPartition(Struct, frozen=True, kw_only=True):
    """A partition with pending events.

    Attributes:
        waits_for: What is missing, for people.
        since: When its oldest pending event was recorded.
    """

    partition: str
    pending: int
    waits_for: str
    since: datetime | None = None


class WhyNot(Struct, frozen=True, kw_only=True):
    """Why no run of a DAG starts now.

    Attributes:
        schedule: As users write it; None if only a request starts it.
        partition: The partition key; None for the whole schedule.
        reasons: The most basic one first.
        condition: The expression, with what is satisfied; None for a partitioned one as a whole.
        inputs: The inputs, in the order of the expression.
        partitions: Those with pending events, the longest waiting first; the first twenty.
        open_partitions: Number of partitions with pending events.
        held_back: Events that the DAG has not evaluated because it is paused or catches up; counted
            up to a thousand.
        held_back_since: When the first of those was recorded.
        last_run: The newest run, of the partition if one is given.
        collecting_run: The run that collects events.
    """

    dag_id: str
    schedule: str | None
    partition: str | None = None
    paused: bool
    active_runs: int
    queued_runs: int
    max_active_runs: int
    reasons: list[Reason]
    condition: Clause | None = None
    inputs: list[WaitingInput]
    partitions: list[WaitingPartition] = []
    open_partitions: int = 0
    held_back: int = 0
    held_back_since: datetime | None = None
    next_tick: datetime | None = None
    last_run: RunView | None = None
    collecting_run: str | None = None


class ConsumedEventView(EventView, frozen=True, kw_only=True):
    """An event that a run consumed.

    Attributes:
        places: Indexes of the inputs in the expression that it counted for.
        hops: Number of runs that led to it, from the origin on.
        pruned: Whether the run that emitted it is removed: the trail ends here.
    """

    places: list[int]
    hops: int = 0
    pruned: bool = False


_CAUSE = re.compile(re.escape(STARTED_BY_TASK) + r"(\S+) of (\S+) ([0-9a-f-]{36})\Z")


class StartedByView(Struct, frozen=True, kw_only=True):
    """The task that started a run.

    Attributes:
        pruned: Whether its run is removed: the trail ends here.
    """

    run_id: str
    dag_id: str
    task_id: str
    pruned: bool = False


class ExplainedRun(Struct, frozen=True, kw_only=True):
    """A run and the events that it consumed.

    Attributes:
        depth: Steps from the explained run; 0 for itself.
        events: In the order of the log; the first hundred.
        more_events: Whether there are more.
        pruned_events: Number of events that it consumed and that are removed by now.
        started_by: The task that started it, if one did.
    """

    run: RunView
    depth: int
    events: list[ConsumedEventView]
    more_events: bool = False
    pruned_events: int = 0
    started_by: StartedByView | None = None


class Explanation(Struct, frozen=True, kw_only=True):
    """Why a run exists: the run, the runs whose tasks started it or emitted its events, and so on.

    Attributes:
        runs: By depth; each run once, even if several paths lead to it.
        ancestry: The DAGs whose runs led to it, from the origin on, along the longest path.
        waits: What it, or its tasks, wait for now, a line each; the first twenty.
        complete: False if the path back was cut off because it is too long.
    """

    run_id: str
    runs: list[ExplainedRun]
    ancestry: list[str] = field(name="trail", default_factory=list)  # the API's key
    waits: list[str] = []
    complete: bool = True


def started_by(run: RunView) -> StartedByView | None:
    """Return the task that started a run, as the run's cause names it."""
    # No other cause begins like it; see `StartRunHandler`.
    found = _CAUSE.match(run.cause) if run.kind == "manual" else None
    if found is None:
        return None
    return StartedByView(task_id=found[1], dag_id=found[2], run_id=found[3])


def starting_run(cause: str) -> UUID | None:
    """Return the run whose task started a run of that cause, if one did."""
    found = _CAUSE.match(cause)
    return None if found is None else UUID(found[3])


def whole_ancestry(steps: Sequence[ExplainedRun], events: dict[str, list[str]]) -> list[str]:
    """Return the DAGs that led to the first of the steps, from the origin on.

    Args:
        steps: The explained run, and what led to it.
        events: Run → the DAGs that led to its events.
    """
    by_run = {step.run.run_id: step for step in steps}
    step, found = steps[0], list[str]()
    while step.started_by is not None:
        found.insert(0, step.started_by.dag_id)
        if step.started_by.run_id not in by_run:
            return found
        step = by_run.pop(step.started_by.run_id)
    return events.get(step.run.run_id, []) + found


class EventOutcomeView(Struct, frozen=True, kw_only=True):
    """The outcome of an event for a subscribed DAG.

    Attributes:
        outcome: `pending`, `consumed`, `filtered`, `expired`, `skipped`, `dead`; `unseen` if the
            DAG subscribed later; `held` by checks, or `discarded`; of a check itself: `waiting`,
            `passed`, `failed`, `error`, `removed`.
        place: Index of the input in the DAG's expression; None if it was not evaluated yet.
        partition: The partition key under which it counted.
        reason: Why, for people.
        run_id, run_state: The run that consumed it.
        at: When the outcome was recorded.
    """

    dag_id: str
    outcome: str = field(name="fate")  # the API's key
    place: int | None = None
    partition: str | None = None
    reason: str | None = None
    run_id: str | None = None
    run_state: str | None = None
    at: datetime | None = None


class EventWithOutcomes(EventView, frozen=True, kw_only=True):
    """An event and its outcomes: one for each subscribed DAG, or several if it counted twice."""

    outcomes: list[EventOutcomeView] = field(name="fates")  # the API's key


class PlannedRuns(Struct, frozen=True, kw_only=True):
    """The runs of a DAG that a replay or a backfill started, or would start.

    Attributes:
        runs: Of a long backfill the first 10,000; one without an id is made later.
        reason: Why it starts none, if so.
        backfill_id: The backfill that makes the runs.
        planned: How many runs there are; null for a replay whose runs are all listed.
        existing: How many of them, or of the first 10,000, exist already.
        first, last: Of the plan, or of its first 10,000, in its order; null if there is none.
    """

    dag_id: str
    dry_run: bool
    runs: list[PlannedRun]
    reason: str | None = None
    backfill_id: str | None = None
    planned: int | None = None
    existing: int | None = None
    first: PlannedRun | None = None
    last: PlannedRun | None = None


class DeadLetterView(Struct, frozen=True, kw_only=True):
    """A dead letter: a message, an event or a run that could not be processed.

    Attributes:
        kind: `message`: a message of the bus; `params`: a run with invalid params; `loop`: a run in
            an endless loop of DAGs; `hook`: a request to a webhook that could not become an event;
            `cloudevent`: a CloudEvent on the bus that could not; `delivery`: an event that a
            subscriber did not accept.
        subject: Its destination: a subject of the bus, a DAG, a webhook or a subscription.
        size: Size of its payload in bytes.
        resent_at: When it was resent, if it was; likewise `discarded_at`.
        revision: Differs after it was resent or discarded; see `If-Match`.
    """

    id: int
    revision: str
    kind: str
    subject: str
    dag_id: str | None = None
    reason: str
    size: int
    created_at: datetime
    resent_at: datetime | None = None
    discarded_at: datetime | None = None


class DeadLetterGroup(Struct, frozen=True, kw_only=True):
    """Open dead letters of one kind and DAG with the same reason.

    Attributes:
        reason: Numbers and quoted texts in it are left out, as …; it selects the letters.
        count: How many there are.
        oldest, newest: When the first and the last one was made.
        example: The newest one's id.
    """

    kind: str
    dag_id: str | None = None
    reason: str
    count: int
    oldest: datetime
    newest: datetime
    example: int


class DeadLetterSummary(Struct, frozen=True, kw_only=True):
    """What the open dead letters are about, the most frequent first."""

    groups: list[DeadLetterGroup]


class DeadLetterDetail(DeadLetterView, frozen=True, kw_only=True):
    """A dead letter with its payload.

    Attributes:
        payload: JSON; a binary message of the bus is shown decoded.
        editable: Whether it can be resent with another payload.
    """

    payload: Any
    editable: bool


class Resent(Struct, frozen=True, kw_only=True):
    """A dead letter that was resent.

    Attributes:
        run_id: The run that it started, if any; in a dry run the one that exists in its place.
        dry_run: Whether nothing was sent.
        would: In a dry run: what would happen, in one line.
        refused: In a dry run: why it would be refused.
        params: In a dry run: those of the run that would start.
    """

    id: int
    run_id: str | None = None
    dry_run: bool = False
    would: str | None = None
    refused: str | None = None
    params: dict[str, Any] | None = None


class NotResent(Struct, frozen=True, kw_only=True):
    """A dead letter that could not be resent, and why."""

    id: int
    reason: str


class ResentLetters(Struct, frozen=True, kw_only=True):
    """The dead letters that one request has resent.

    Attributes:
        refused: Those that could not be resent.
        more: Whether the request selects more than it has tried.
    """

    resent: list[Resent]
    refused: list[NotResent]
    more: bool


class DiscardedLetters(Struct, frozen=True, kw_only=True):
    """The dead letters that one request has discarded.

    Attributes:
        discarded: Their ids.
        more: Whether the request selects more than it has discarded.
    """

    discarded: list[int]
    more: bool
