"""Simulations as JSON: what a schedule makes of events that did not happen."""

from datetime import datetime
from typing import Any

from msgspec import Struct

from pubsubflow.model.schedule.explain import Clause


class SimulatedRunView(Struct, frozen=True, kw_only=True):
    """A run that would start.

    Attributes:
        at: When.
        kind: `dataset`, or `cron` for one at a tick.
        cause: One line: why.
        events: What it consumes: places in the list of the events that were given.
        params: What its tasks would see.
        refused: Why it would not start after all: its params do not fit.
    """

    at: datetime
    kind: str
    cause: str
    events: list[int] = []
    partition: str | None = None
    logical_time: datetime | None = None
    params: dict[str, Any] = {}
    refused: str | None = None


class SimulatedOutcome(Struct, frozen=True, kw_only=True):
    """What became of an event that no run consumed, for one input.

    Attributes:
        event: Its place in the list of the events that were given.
        outcome: `pending`, `filtered`, `expired`, `skipped`, or `unseen` for one of a dataset that
            the schedule does not wait for.
        place: Index of the input.
        partition: The key of the run that it would count for.
    """

    event: int
    outcome: str
    place: int | None = None
    partition: str | None = None
    reason: str | None = None


class WaitingCondition(Struct, frozen=True, kw_only=True):
    """A condition at the end of the time: that of the schedule, or of one partition.

    Attributes:
        waits_for: What is lacking, in one line.
        condition: The expression with the parts that hold.
    """

    partition: str | None = None
    waits_for: str
    condition: Clause


class SimulationView(Struct, frozen=True, kw_only=True):
    """What a schedule makes of events.

    Attributes:
        schedule: As it is shown elsewhere.
        python: As it is written in a DAG file; null if only the DAG's own file can write it.
        datasets: The datasets and patterns that it waits for, in the order of its inputs.
        since, until: The time that was looked at.
        runs: Those that would start, in order; the first thousand.
        more_runs: How many further ones there would be, that are not listed.
        outcomes: Of the events that no run consumed; the first five thousand.
        waiting: What it waits for in the end; with partitions, of those with pending events, the
            first fifty.
        next_tick: The next tick after the end.
    """

    schedule: str
    python: str | None
    datasets: list[str]
    since: datetime
    until: datetime
    runs: list[SimulatedRunView]
    more_runs: int = 0
    outcomes: list[SimulatedOutcome] = []
    waiting: list[WaitingCondition] = []
    next_tick: datetime | None = None


class InventedEvent(Struct, frozen=True, forbid_unknown_fields=True):
    """An event that a simulation gets.

    Attributes:
        dataset: Its URI.
        time: When it happens and is recorded.
        extra: A JSON object.
    """

    dataset: str
    time: datetime
    partition: str | None = None
    extra: dict[str, Any] = {}


class SimulationOrder(Struct, frozen=True):
    """What a process that simulates gets.

    Attributes:
        text: A schedule as Python; None to take that of `spec`.
        spec: The encoded spec of a DAG: its limits and params; None for none.
        since, until: The time to look at.
        lasts_seconds: How long each run is active.
        cpu_seconds: How much processor time the simulation may take.
    """

    text: str | None
    spec: bytes | None
    events: tuple[InventedEvent, ...]
    since: datetime
    until: datetime
    lasts_seconds: float = 0.0
    cpu_seconds: float = 5.0


class SimulationReply(Struct, frozen=True):
    """What that process returns: a simulation, or what is wrong with the order."""

    found: SimulationView | None = None
    fault: str | None = None
