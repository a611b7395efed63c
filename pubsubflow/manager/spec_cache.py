"""What the manager remembers of DAG versions and dataset names: both never change."""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Generic, TypeVar

import msgspec

from pubsubflow.model.datasets import matches
from pubsubflow.model.schedule.conditions import Input, inputs
from pubsubflow.model.spec import DagSpec, Plan
from pubsubflow.store.manager_transaction import FoldTransaction

_decode_spec = msgspec.msgpack.Decoder(DagSpec).decode
K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """A mapping that forgets what was used longest ago."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        """Return the value, or None."""
        if key in self._items:
            self._items.move_to_end(key)
        return self._items.get(key)

    def put(self, key: K, value: V) -> None:
        """Remember a value."""
        self._items[key] = value
        if len(self._items) > self._size:
            self._items.popitem(last=False)


class Version:
    """One version of a DAG, ready to decide with.

    Attributes:
        number: Its number in the store.
        dag: The DAG's number in the store.
        plan: What follows from its spec.
        inputs: The places of its condition.
        exact: Dataset URI → the places where just it stands.
        patterns: The places where a pattern stands.
    """

    def __init__(self, number: int, dag: int, spec: DagSpec) -> None:
        self.number = number
        self.dag = dag
        self.plan = Plan(spec)
        self.spec = spec
        self.schedule = spec.schedule
        places = inputs(spec.schedule.condition) if spec.schedule is not None else ()
        self.inputs = tuple(places)
        self.patterns = tuple(place for place in self.inputs if place.pattern)
        self.exact: dict[str, tuple[Input, ...]] = {}
        for place in self.inputs:
            if not place.pattern:
                self.exact[place.uri] = (*self.exact.get(place.uri, ()), place)

    def places(self, uri: str) -> tuple[Input, ...]:
        """Return the places that events of a dataset match, filters apart."""
        exact = self.exact.get(uri, ())
        if not self.patterns:
            return exact
        return exact + tuple(place for place in self.patterns if matches(place.uri, uri))


class Versions:
    """Reads versions and dataset ids through a cache."""

    def __init__(self, size: int = 20_000) -> None:
        self._versions: Recent[int, Version] = Recent(size)
        self._datasets: Recent[str, int] = Recent(size * 5)

    async def load(self, transaction: FoldTransaction, numbers: Iterable[int]) -> None:
        """Make versions available to `get`."""
        missing = sorted({number for number in numbers if self._versions.get(number) is None})
        for row in await transaction.fetch("read_versions", missing) if missing else ():
            version = Version(row["id"], row["dag"], _decode_spec(row["spec"]))
            self._versions.put(version.number, version)

    def get(self, number: int) -> Version:
        """Return a version that was loaded."""
        version = self._versions.get(number)
        if version is None:
            raise KeyError(f"version {number} was not loaded")
        return version

    async def dataset_ids(
        self, transaction: FoldTransaction, uris: Iterable[str]
    ) -> dict[str, int]:
        """Return the ids of datasets; those that nobody knows yet are made known."""
        found: dict[str, int] = {}
        missing: set[str] = set()
        for uri in uris:
            number = self._datasets.get(uri)
            if number is None:
                missing.add(uri)
            else:
                found[uri] = number
        while missing:
            for row in await transaction.fetch("name_datasets", sorted(missing)):
                found[row["uri"]] = row["id"]
                missing.discard(row["uri"])
        return found

    def remember_datasets(self, found: dict[str, int]) -> None:
        """Keep dataset ids, once the transaction that may have made them has committed."""
        for uri, number in found.items():
            self._datasets.put(uri, number)
