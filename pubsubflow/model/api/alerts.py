"""Alerts as the API shows them."""

from datetime import datetime

from msgspec import Struct

from pubsubflow.model.api.resources import CallbackView


class AlertView(Struct, frozen=True, kw_only=True):
    """An alert.

    Attributes:
        kind: `deadline`, `freshness`, `callback` or `check`.
        subject: The DAG, the dataset, or the check.
        state: `open`, `acknowledged` or `ended`.
        text: What happened, in one line.
        event_dataset: The dataset whose events announce its opening and its end.
        since: The last event of the dataset.
        ending: Why it has ended.
    """

    id: int
    kind: str
    subject: str
    state: str
    text: str
    event_dataset: str
    dag_id: str | None = None
    run_id: str | None = None
    dataset: str | None = None
    since: datetime | None = None
    opened_at: datetime
    acknowledged_at: datetime | None = None
    acknowledged_by: str | None = None
    ended_at: datetime | None = None
    ending: str | None = None


class AlertDetail(AlertView, frozen=True, kw_only=True):
    """An alert and the calls that it has made."""

    callbacks: list[CallbackView] = []
