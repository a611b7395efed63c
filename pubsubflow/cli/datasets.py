"""Commands about datasets and their events."""

from datetime import datetime
from typing import Annotated, Any

from cyclopts import Parameter

from pubsubflow.cli import showing
from pubsubflow.cli.asking import Asking
from pubsubflow.cli.values import aware, pairs

_DEFAULT = Asking()


def list_datasets(*, limit: int | None = None, asking: Asking = _DEFAULT) -> None:
    """List datasets, with their last event and the DAGs that wait for them.

    Args:
        limit: How many at most; all if left out.
        asking: Which daemon to ask, and the form of the answer.
    """
    with asking.client() as client:
        found = client.datasets(limit=limit)
        if asking.json:
            showing.show_list(found)
            return
        listing = showing.Listing("dataset", "last event", "wakes", elastic=["wakes"])
        for each in found:
            last = showing.brief(each.last_event_at)
            listing.row(each.dataset, last, ", ".join(each.consumers))
    listing.show(none="no datasets")


def emit_event(
    dataset: str,
    /,
    *,
    extra: str | None = None,
    set_: Annotated[tuple[str, ...], Parameter(name=["--set", "-s"])] = (),
    partition: str | None = None,
    time: datetime | None = None,
    id: str | None = None,
    asking: Asking = _DEFAULT,
) -> None:
    """Say that a dataset has news; prints the event's id once it is durable.

    Args:
        dataset: URI of the dataset.
        extra: What to say about it, as a JSON object.
        set_: One fact about it, as name=value; the value is JSON if it can be, else text.
        partition: Which part of the dataset has news.
        time: When it happened; now if left out.
        id: Saying it again under the same id is the same event.
        asking: Which daemon to ask, and the form of the answer.
    """
    event: dict[str, Any] = {"dataset": dataset, "extra": pairs(extra, set_, "set")}
    given = {"partition": partition, "time": aware(time), "id": id}
    event.update((name, value) for name, value in given.items() if value is not None)
    with asking.client() as client:
        posted = client.emit([event])
    if asking.json:
        showing.show_json(posted)
    else:
        known = " (known before)" if posted.duplicates else ""
        showing.show(posted.ids[0] + known)


def list_events(
    dataset: str | None = None, /, *, limit: int = 20, asking: Asking = _DEFAULT
) -> None:
    """List dataset events, the newest first.

    Args:
        dataset: Only events of this URI.
        limit: How many at most; 20 if left out.
        asking: Which daemon to ask, and the form of the answer.
    """
    with asking.client() as client:
        found = client.events(dataset=dataset, limit=limit)
        if asking.json:
            showing.show_list(found)
            return
        listing = showing.Listing(
            *("event", "time", "dataset", "from", "extra"),
            narrow=3,
            elastic=["dataset", "from", "extra"],
        )
        for event in found:
            by = event.source if event.dag_id is None else f"{event.dag_id}.{event.task_id}"
            time = showing.brief(event.time)
            listing.row(event.event_id, time, event.dataset, by, showing.compact(event.extra))
    listing.show(none="no events")
