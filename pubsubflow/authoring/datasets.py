"""Datasets as users declare them."""

from collections.abc import Mapping
from typing import Any

import msgspec

from pubsubflow.authoring.loading.registry import collect_dataset
from pubsubflow.authoring.schedules.dataset_expressions import Demand, Source
from pubsubflow.authoring.source_location import mistake
from pubsubflow.authoring.trigger_encoding import carried
from pubsubflow.errors import DefinitionError
from pubsubflow.model.datasets import normalise_pattern, normalise_uri
from pubsubflow.model.schedule.conditions import Input
from pubsubflow.model.spec import DatasetSpec
from pubsubflow.model.triggers import Trigger


class Dataset(Source):
    """Something that tasks produce and other DAGs wait for; its URI is its identity.

    Args:
        uri: For example `s3://lake/orders`; normalised, at most 1,500 characters.
        name: A name for people.
        group: A heading to list it under.
        extra: A JSON object about it.
        watch: A trigger whose events become events of this dataset.

    Raises:
        DefinitionError: The URI or another argument is bad, or the trigger is not registered.
    """

    __slots__ = ("_watched", "extra", "group", "name", "uri", "watch")

    def __init__(
        self,
        uri: str,
        *,
        name: str | None = None,
        group: str | None = None,
        extra: Mapping[str, Any] | None = None,
        watch: Trigger | None = None,
    ) -> None:
        self.uri = uri_of(uri)
        for keyword, text in (("name", name), ("group", group)):
            if text is not None and not (isinstance(text, str) and text.strip()):
                raise mistake(f"Dataset({uri!r}): {keyword} must be a text, not {text!r}")
        self.name = name
        self.group = group
        self.extra = json_object(extra, f"Dataset({uri!r}): extra")
        self.watch = watch
        self._watched = ("", b"") if watch is None else carried(watch, f"Dataset({uri!r}): watch")
        collect_dataset(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dataset) and other.uri == self.uri

    def __hash__(self) -> int:
        return hash(self.uri)

    def __repr__(self) -> str:
        return f"Dataset({self.uri!r})"

    @staticmethod
    def match(pattern: str) -> Demand:
        """Return what stands for every dataset whose URI matches, also ones that appear later.

        Args:
            pattern: For example `s3://lake/*/orders`: `*` stands for a part of one segment, `**`
                for any number of segments.

        Raises:
            DefinitionError: It is no pattern of a URI.
        """
        try:
            return Demand(Input(0, normalise_pattern(pattern), pattern=True))
        except DefinitionError as error:
            raise mistake(error.message) from error

    @property
    def place(self) -> Input:
        """What it asks for as an input of a schedule: one event."""
        return Input(0, self.uri)

    def to_spec(self) -> DatasetSpec:
        """Return the serialised form."""
        name, data = self._watched
        return DatasetSpec(self.uri, self.name, self.group, self.extra, name or None, data)


def uri_of(dataset: object) -> str:
    """Return the normalised URI of a dataset or of a URI.

    Raises:
        DefinitionError: It is neither.
    """
    if isinstance(dataset, Dataset):
        return dataset.uri
    if isinstance(dataset, Demand):
        raise mistake(f"{dataset!r} stands in schedules only; name the dataset itself")
    try:
        return normalise_uri(dataset)
    except DefinitionError as error:
        raise mistake(error.message) from error


def json_object(value: object, what: str) -> dict[str, Any]:
    """Return a copy of a JSON object as JSON would give it back.

    Raises:
        DefinitionError: It is no mapping with text keys, or holds what JSON cannot.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise mistake(f"{what} must be a dict with text keys, not {value!r}")
    try:
        copied: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(dict(value)))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise mistake(f"{what} must be JSON: {error}") from error
    return copied
