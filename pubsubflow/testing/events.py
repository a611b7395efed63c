"""Dataset events for tests."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pubsubflow.authoring.datasets import Dataset, json_object, uri_of
from pubsubflow.authoring.runtime.context import DatasetEvent
from pubsubflow.model.ids import new_id


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
        time: When it happened; now when left out.

    Raises:
        DefinitionError: The URI is invalid or `extra` is not a JSON object.
    """
    return DatasetEvent(
        str(new_id()),
        uri_of(dataset),
        json_object(extra, "extra"),
        partition,
        time or datetime.now(UTC),
        "test",
    )
