"""Dataset events for tests."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pubsubflow.authoring.datasets import Dataset, json_object, uri_of
from pubsubflow.authoring.runtime.dataset_event import DatasetEvent
from pubsubflow.model.ids import new_id


class UndatedEvent(DatasetEvent, frozen=True):
    """An event without a time of its own: it happens when a test gives it to a run."""


def event(
    dataset: Dataset | str,
    *,
    extra: Mapping[str, Any] | None = None,
    partition: str | None = None,
    time: datetime | None = None,
) -> DatasetEvent:
    """Return an event as a run consumes it.

    Args:
        dataset: A dataset or its URI.
        extra: A JSON object.
        partition: The part of the dataset that was updated.
        time: When it happened; when left out, the moment on the clock of the test that it is given
            to.

    Raises:
        DefinitionError: The URI is invalid or `extra` is not a JSON object.
    """
    kind = UndatedEvent if time is None else DatasetEvent
    return kind(
        str(new_id()),
        Dataset(uri_of(dataset)),
        json_object(extra, "extra"),
        partition,
        time or datetime.now(UTC),
        "test",
    )
