"""JSON types of one dataset: what produces and what consumes its events."""

from datetime import datetime

from msgspec import Struct

from pubsubflow.model.api.resources import DatasetView, EventView


class ProducerView(Struct, frozen=True, kw_only=True):
    """A task that emits events of a dataset.

    Attributes:
        declared: Whether the version in force names it as an outlet; if not, it has emitted one of
            the last events.
        last_event_at: When it emitted the newest of the last events, if one is of it.
    """

    dag_id: str
    task_id: str
    declared: bool
    last_event_at: datetime | None = None


class ConsumerView(Struct, frozen=True, kw_only=True):
    """A DAG whose schedule subscribes to a dataset.

    Attributes:
        pending: How many of the dataset's events it has not consumed yet; counted up to 1,000.
        pending_since: When the oldest of these was recorded.
    """

    dag_id: str
    paused: bool
    pending: int
    pending_since: datetime | None = None


class DatasetCheckView(Struct, frozen=True, kw_only=True):
    """A check of a dataset; see `/api/v1/checks`.

    Attributes:
        held: How many of the dataset's events it holds; counted up to 1,000.
    """

    check: str
    paused: bool
    held: int


class DatasetAlertView(Struct, frozen=True, kw_only=True):
    """An open alert of a dataset; see `/api/v1/alerts`."""

    id: int
    kind: str
    text: str
    opened_at: datetime


class DatasetDetail(DatasetView, frozen=True, kw_only=True):
    """A dataset with what produces and consumes its events.

    Attributes:
        producers: Tasks that emit its events.
        sources: Where others of the last events came from: `api`, `cli`, `bus`, `watch`, ….
        subscribers: DAGs that subscribe to it, and how far behind each is.
        checks: Checks of its events.
        alerts: Its open alerts.
        last_events: The newest events, the newest first.
    """

    producers: list[ProducerView]
    sources: list[str]
    subscribers: list[ConsumerView]
    alerts: list[DatasetAlertView]
    last_events: list[EventView]
    checks: list[DatasetCheckView]
