"""Datasets are declared by URI: an outlet of tasks, and an input of schedules."""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

import msgspec

from pubsubflow.authoring.alerts.callbacks import Callback, callback_name, callbacks
from pubsubflow.authoring.registry import collect_dataset
from pubsubflow.authoring.schedules.dataset_expressions import (
    ConstrainedDataset,
    DatasetExpression,
    written_uri,
)
from pubsubflow.authoring.source_location import definition_error
from pubsubflow.authoring.trigger_encoding import encode_checked
from pubsubflow.authoring.validation import positive_seconds
from pubsubflow.errors import DefinitionError
from pubsubflow.model.alerts import FreshSpec
from pubsubflow.model.datasets import normalise_pattern, not_a_uri
from pubsubflow.model.json_values import json_fault
from pubsubflow.model.schedule.conditions import DatasetInput
from pubsubflow.model.spec import DatasetSpec
from pubsubflow.model.triggers import Trigger


class Dataset(DatasetExpression):
    """Data that tasks produce and other DAGs subscribe to; its URI is its identity.

    Args:
        uri: For example `s3://lake/orders`; normalised, at most 1,500 characters.
        name: A name for people.
        group: A heading to list it under.
        extra: A JSON object about it.
        watch: A trigger whose events become events of this dataset.
        fresh: Without an event for that long, an alert opens; the next event ends it.
        notify: A function `(ctx)`, a notifier, or a list of these, called when that alert opens.

    Raises:
        DefinitionError: The URI or another argument is bad, or the trigger is not registered.
    """

    __slots__ = ("_watched", "extra", "fresh", "group", "name", "notify", "uri", "watch")

    def __init__(
        self,
        uri: str,
        *,
        name: str | None = None,
        group: str | None = None,
        extra: Mapping[str, Any] | None = None,
        watch: Trigger | None = None,
        fresh: timedelta | None = None,
        notify: Any = (),
    ) -> None:
        self.uri = uri_of(uri)
        for keyword, text in (("name", name), ("group", group)):
            if text is not None and not (isinstance(text, str) and text.strip()):
                raise definition_error(
                    f"Dataset({uri!r}): {keyword} must be a string, not {text!r}"
                )
        self.name = name
        self.group = group
        self.extra = json_object(extra, f"Dataset({uri!r}): extra")
        self.watch = watch
        # Encoded here, so that an error names the line of the dataset.
        self._watched = (
            ("", b"") if watch is None else encode_checked(watch, f"Dataset({uri!r}): watch")
        )
        self.fresh, self.notify = _freshness(uri, fresh, notify)
        collect_dataset(self)

    def __eq__(self, other: object) -> bool:
        # Its URI is its identity: mappings by dataset are read by either.
        return self.uri == (other.uri if isinstance(other, Dataset) else other)

    def __lt__(self, other: "Dataset") -> bool:
        return self.uri < other.uri

    def __hash__(self) -> int:
        return hash(self.uri)

    def __str__(self) -> str:
        return self.uri

    def __repr__(self) -> str:
        return f"Dataset({self.uri!r})"

    @staticmethod
    def match(pattern: str) -> ConstrainedDataset:
        """Return an input for every dataset whose URI matches, also ones that appear later.

        Args:
            pattern: For example `s3://lake/*/orders`: `*` stands for a part of one segment, `**`
                for any number of segments.

        Raises:
            DefinitionError: It is not a pattern of URIs.
        """
        if not isinstance(pattern, str):
            raise definition_error(not_a_uri(pattern).message)
        try:
            return ConstrainedDataset(DatasetInput(0, normalise_pattern(pattern), pattern=True))
        except DefinitionError as error:
            raise definition_error(error.message) from error

    @property
    def dataset_input(self) -> DatasetInput:
        """The dataset as an input of a schedule: one event is enough."""
        return DatasetInput(0, self.uri)

    def to_spec(self) -> DatasetSpec:
        """Return the serialised form."""
        name, data = self._watched
        return DatasetSpec(
            self.uri, self.name, self.group, self.extra, name or None, data, self.to_fresh_spec()
        )

    def to_fresh_spec(self) -> FreshSpec | None:
        """Return how fresh it is to be; None if that is not declared."""
        if self.fresh is None:
            return None
        return FreshSpec(self.fresh, tuple(map(callback_name, self.notify)))


def freshness_callbacks(datasets: Iterable[Dataset], uri: str) -> tuple[Callback, ...]:
    """Return what is called when a dataset is stale, by the declaration in force of a file.

    Args:
        datasets: All that the file makes, in order.
        uri: The dataset.
    """
    found = [(each.to_fresh_spec(), each.notify) for each in datasets if each.uri == uri]
    declared = [(spec.precedence, notify) for spec, notify in found if spec is not None]
    return min(declared, key=lambda each: each[0])[1] if declared else ()


def _freshness(
    uri: str, fresh: object, notify: object
) -> tuple[float | None, tuple[Callback, ...]]:
    """Return the seconds of `fresh`, and what is called.

    Raises:
        DefinitionError: One of them is invalid, or `notify` is given without `fresh`.
    """
    try:
        seconds = None if fresh is None else positive_seconds(fresh)
        called = callbacks(notify)
    except (TypeError, ValueError) as error:
        given = f"fresh={fresh!r}, notify={notify!r}"
        raise definition_error(f"Dataset({uri!r}): {given}: {error}") from None
    if called and seconds is None:
        raise definition_error(
            f"Dataset({uri!r}): notify= is called when an event is missing: say for how long, by "
            "fresh=timedelta(…)"
        )
    return seconds, called


def uri_of(dataset: object) -> str:
    """Return the normalised URI of a dataset or of a URI.

    Raises:
        DefinitionError: It is neither, or a dataset with constraints.
    """
    if isinstance(dataset, Dataset):
        return dataset.uri
    # Constraints would be lost silently: outlets and events are of the dataset itself.
    if isinstance(dataset, ConstrainedDataset):
        raise definition_error(
            f"{dataset!r} is for schedules only; give the dataset without constraints"
        )
    return written_uri(dataset)


def json_object(value: object, what: str) -> dict[str, Any]:
    """Return a copy of a JSON object as it is after a round trip through JSON.

    Raises:
        DefinitionError: It is not a mapping with string keys, or JSON cannot encode it.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise definition_error(f"{what} must be a dict with string keys, not {value!r}")
    try:
        plain = msgspec.to_builtins(dict(value), str_keys=True)
        # The copy is what consumers get, and later changes of the caller's dict do not reach it.
        copied: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(plain))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise definition_error(f"{what} must be JSON: {error}") from error
    # Of what was given: the encoder writes null for NaN.
    fault = json_fault(plain, what)
    if fault is not None:
        raise definition_error(fault)
    return copied
