"""What people and programs see of why: why no run starts, and what became of events."""

from datetime import datetime
from typing import Any

from msgspec import Struct

from pubsubflow.model.api.resources import EventView, RunView
from pubsubflow.model.schedule.explain import Clause, Parts, Reason
from pubsubflow.model.wire.commands import Planned


class WaitingInput(Struct, frozen=True, kw_only=True):
    """A place where a dataset stands, and what is there.

    Attributes:
        place: Its number in the expression.
        dataset: URI, or a pattern.
        where: The filter.
        holds: Whether it has what it asks for.
        pending: Events that no run has consumed; over all partitions when none is asked about.
        at_least: How many it takes.
        missing: How many are lacking.
        too_old: How many of the pending are older than `within_seconds` allows.
        parts: For a window that is rolled up, which parts of it are there.
        reachable: False when no key of its events can count for the partition.
        waiting_since: When the oldest pending one was recorded.
        last_event_id, last_event_at: The newest event of its datasets, consumed or not.
        filtered, expired, skipped: How many events went that way in the last 24 hours.
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
    """A partition in which something is pending.

    Attributes:
        waits_for: What it still lacks, for people.
        since: When its oldest pending event was recorded.
    """

    partition: str
    pending: int
    waits_for: str
    since: datetime | None = None


class WhyNot(Struct, frozen=True, kw_only=True):
    """Why no run of a DAG starts now.

    Attributes:
        schedule: As users write it; None when it runs only when asked.
        partition: The partition key that is looked at; None for the whole.
        reasons: The most basic first.
        condition: The expression with what holds; None for a partitioned one as a whole.
        inputs: Per place what is there.
        partitions: Those where something is pending, the longest waiting first; the first twenty.
        open_partitions: How many there are.
        held_back: Events that the DAG has not looked at, as it is paused or catches up; counted up
            to a thousand.
        held_back_since: When the first of those was recorded.
        last_run: The newest run, of the partition if one is asked about.
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


class ConsumedEvent(EventView, frozen=True, kw_only=True):
    """An event that a run consumed.

    Attributes:
        places: Numbers of the places of the expression where it stood.
        hops: How many runs led to it, from the origin on.
    """

    places: list[int]
    hops: int = 0


class ExplainedRun(Struct, frozen=True, kw_only=True):
    """A run and the events that it consumed.

    Attributes:
        depth: Steps from the run in question; 0 for itself.
        events: In the order of the log; the first hundred.
        more_events: Whether there are more.
    """

    run: RunView
    depth: int
    events: list[ConsumedEvent]
    more_events: bool = False


class Explanation(Struct, frozen=True, kw_only=True):
    """Why a run exists: itself, then the runs whose tasks emitted what it consumed, and so on.

    Attributes:
        runs: By depth; each run once, however many ways lead to it.
        trail: The DAGs whose runs led to it, from the origin on, by its longest way.
        complete: False when the way back was cut off because it is too long.
    """

    run_id: str
    runs: list[ExplainedRun]
    trail: list[str] = []
    complete: bool = True


class FateView(Struct, frozen=True, kw_only=True):
    """What became of an event for a subscription.

    Attributes:
        fate: `pending`, `consumed`, `filtered`, `expired`, `skipped`, `dead`; `unseen` when the
            DAG subscribed later.
        place: Number of the place in the DAG's expression; None when it was not looked at yet.
        partition: The partition key under which it counted.
        reason: Why, for people.
        run_id, run_state: The run that consumed it.
        at: When that was.
    """

    dag_id: str
    fate: str
    place: int | None = None
    partition: str | None = None
    reason: str | None = None
    run_id: str | None = None
    run_state: str | None = None
    at: datetime | None = None


class EventFate(EventView, frozen=True, kw_only=True):
    """An event and what became of it, one entry a subscription, or several if it counted twice."""

    fates: list[FateView]


class PlannedRuns(Struct, frozen=True, kw_only=True):
    """What a replay or a backfill started of a DAG, or would start."""

    dag_id: str
    dry_run: bool
    runs: list[Planned]


class DeadLetterView(Struct, frozen=True, kw_only=True):
    """What could not be done, kept for a person.

    Attributes:
        kind: `message` of the bus; a run that was not made: `params` that do not fit, `loop`;
            `hook`: a request to a webhook that could not become an event; `cloudevent`: one on the
            bus that could not; `delivery`: an event that a subscriber did not take.
        subject: Where it was going: a subject of the bus, a DAG or a webhook.
        size: Of its payload, in bytes.
        resent_at: When it was sent again, if it was.
        revision: Another one after it was sent again.
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


class DeadLetterDetail(DeadLetterView, frozen=True, kw_only=True):
    """A dead letter with what it holds.

    Attributes:
        payload: JSON; a message of the bus that is none is shown decoded.
        editable: Whether it can be sent again with another payload.
    """

    payload: Any
    editable: bool


class Resent(Struct, frozen=True, kw_only=True):
    """A dead letter was sent again.

    Attributes:
        run_id: The run that was made, if that is what it is about.
    """

    id: int
    run_id: str | None = None
