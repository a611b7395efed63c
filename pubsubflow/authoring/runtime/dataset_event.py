"""A dataset event as tasks and tests see it."""

from datetime import datetime
from typing import Any, Self

from msgspec import Struct

from pubsubflow.authoring.datasets import Dataset
from pubsubflow.model.wire.messages import EventInfo


class DatasetEvent(Struct, frozen=True):
    """An event of a dataset.

    Attributes:
        event_id: The public UUID.
        dataset: The dataset that was updated; it equals its URI.
        extra: JSON object.
        partition: The part of the dataset that was updated.
        time: When it happened, according to its source.
        source: `task`, `api`, `cli`, `bus` …
        run_id: The run whose task emitted it, if any; likewise `dag_id` and `task_id`.
    """

    event_id: str
    dataset: Dataset
    extra: dict[str, Any]
    partition: str | None
    time: datetime
    source: str
    run_id: str | None = None
    dag_id: str | None = None
    task_id: str | None = None

    @classmethod
    def of(cls, info: EventInfo) -> Self:
        """Return an event from the form in which it travels."""
        return cls(
            info.event_id,
            Dataset(info.dataset),
            info.extra,
            info.partition,
            info.time,
            info.source,
            info.run_id,
            info.dag_id,
            info.task_id,
        )

    def to_info(self) -> EventInfo:
        """Return the event in the form in which it travels."""
        return EventInfo(
            self.event_id,
            self.dataset.uri,
            self.extra,
            self.partition,
            self.time,
            self.source,
            self.run_id,
            self.dag_id,
            self.task_id,
        )
