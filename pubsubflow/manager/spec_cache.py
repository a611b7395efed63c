"""Spec cache of a manager: DAG versions and dataset ids, neither of which ever changes.

The ids of DAGs by name do, when a DAG is deleted: who takes one from here checks it under the lock.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from msgspec import Struct

from pubsubflow.model.datasets import matches
from pubsubflow.model.recent import Recent
from pubsubflow.model.runs.plan import MAX_MAP_LENGTH, Plan
from pubsubflow.model.schedule.checks import CheckPolicy
from pubsubflow.model.schedule.conditions import DatasetInput, inputs
from pubsubflow.model.source.stored_specs import STORED_SPEC
from pubsubflow.model.spec import DagSpec

if TYPE_CHECKING:
    from pubsubflow.store.batches.manager_transaction import ManagerTransaction


class DagVersion:
    """One version of a DAG, ready to decide with.

    Attributes:
        id: Its id in the store.
        dag: The DAG's id in the store.
        plan: What follows from its spec.
        inputs: The inputs of its condition.
        takes_params: Whether its runs have params.
        exact: Dataset URI → the inputs that name it.
        patterns: The inputs that match by a pattern.
        check: How it checks events, if it is a check: then its condition fires never, and a run of
            it is made for each event.
    """

    def __init__(
        self, version: int, dag: int, spec: DagSpec, *, max_map_length: int = MAX_MAP_LENGTH
    ) -> None:
        self.id = version
        self.dag = dag
        self.plan = Plan(spec, max_map_length=max_map_length)
        self.spec = spec
        self.schedule = spec.schedule
        policy = None if spec.schedule is None else spec.schedule.policy
        self.check = policy if isinstance(policy, CheckPolicy) else None
        self.takes_params = bool(spec.params or spec.params_schema or spec.params_from)
        found = inputs(spec.schedule.condition) if spec.schedule is not None else ()
        self.inputs = tuple(found)
        self.patterns = tuple(each for each in self.inputs if each.pattern)
        self.exact: dict[str, tuple[DatasetInput, ...]] = {}
        for each in self.inputs:
            if not each.pattern:
                self.exact[each.uri] = (*self.exact.get(each.uri, ()), each)

    def inputs_for(self, uri: str) -> tuple[DatasetInput, ...]:
        """Return the inputs that events of a dataset match, filters apart."""
        exact = self.exact.get(uri, ())
        if not self.patterns:
            return exact
        return exact + tuple(each for each in self.patterns if matches(each.uri, uri))


class Canary(Struct, frozen=True):
    """A version that takes a share of a DAG's new runs.

    Attributes:
        share: Above 0 and below 1.
        source: What its runs are pinned to.
    """

    version: DagVersion
    share: float
    source: str


class SpecCache:
    """Reads DAG versions and dataset ids through a cache."""

    def __init__(self, size: int = 20_000, *, max_map_length: int = MAX_MAP_LENGTH) -> None:
        self._max_map_length = max_map_length
        self._versions: Recent[int, DagVersion] = Recent(size)
        self._datasets: Recent[str, int] = Recent(size * 5)
        self._dags: Recent[str, int] = Recent(size)

    async def versions(
        self, transaction: "ManagerTransaction", ids: Iterable[int]
    ) -> dict[int, DagVersion]:
        """Return DAG versions by their ids."""
        found: dict[int, DagVersion] = {}
        missing: set[int] = set()
        for each in ids:
            version = self._versions.get(each)
            if version is None:
                missing.add(each)
            else:
                found[each] = version
        for row in await transaction.fetch("read_dag_versions", sorted(missing)) if missing else ():
            version = DagVersion(
                row["id"],
                row["dag"],
                STORED_SPEC.decode(row["spec"]),
                max_map_length=self._max_map_length,
            )
            found[version.id] = version
            self._versions.put(version.id, version)
        return found

    async def dataset_ids(
        self, transaction: "ManagerTransaction", uris: Iterable[str]
    ) -> dict[str, int]:
        """Return the ids of datasets; those that are not known yet are registered."""
        found: dict[str, int] = {}
        missing: set[str] = set()
        for uri in uris:
            dataset = self._datasets.get(uri)
            if dataset is None:
                missing.add(uri)
            else:
                found[uri] = dataset
        # Another transaction may register a dataset at the same moment: ours then returns nothing
        # for it, as it does not see the other's row yet, and is repeated.
        while missing:
            for row in await transaction.fetch("register_datasets", sorted(missing)):
                found[row["uri"]] = row["id"]
                missing.discard(row["uri"])
        return found

    def remember_datasets(self, found: dict[str, int]) -> None:
        """Keep dataset ids, once the transaction that may have registered them has committed."""
        for uri, dataset in found.items():
            self._datasets.put(uri, dataset)

    def known_dags(self, names: Iterable[str]) -> dict[str, int]:
        """Return the remembered ids of DAGs by their names, as far as there are any."""
        found = {name: self._dags.get(name) for name in names}
        return {name: dag for name, dag in found.items() if dag is not None}

    def remember_dag(self, name: str, dag: int) -> None:
        """Remember the id of a DAG."""
        self._dags.put(name, dag)
