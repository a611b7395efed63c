"""Neighbourhoods of datasets: what leads to them and what follows, some steps far."""

from collections.abc import Iterable

import asyncpg

from pubsubflow.errors import NotFound
from pubsubflow.model.api.overviews.graph import DatasetGraph, GraphNodeView
from pubsubflow.model.source.stored_specs import decode_outlets
from pubsubflow.store.database import Connection, Database
from pubsubflow.store.named_queries import SQL

_SPECS_A_READ = 500


class DeclaredOutlets:
    """Which DAGs declare which datasets as outlets, in the versions in force.

    Definitions alone say it: each version's is read once, and what it declares is kept.
    """

    def __init__(self) -> None:
        self._declared: dict[int, tuple[str, ...]] = {}
        self._in_force: dict[int, int] = {}
        self._producers: dict[str, list[int]] = {}

    async def refresh(self, connection: Connection) -> None:
        """Read the definitions that came into force since the last time."""
        rows = await connection.fetch(SQL["list_versions_of_present_dags"])
        in_force = {row["dag"]: row["version"] for row in rows}
        if in_force == self._in_force:
            return
        missing = sorted(set(in_force.values()) - self._declared.keys())
        for start in range(0, len(missing), _SPECS_A_READ):
            part = missing[start : start + _SPECS_A_READ]
            # A part at a time: 10,000 definitions at once would hold up other requests.
            for row in await connection.fetch(SQL["read_dag_versions"], part):
                self._declared[row["id"]] = decode_outlets(row["spec"])
        # What is not in force any more would only pile up.
        self._declared = {version: self._declared.get(version, ()) for version in in_force.values()}
        producers: dict[str, list[int]] = {}
        for dag, version in in_force.items():
            for uri in self._declared[version]:
                producers.setdefault(uri, []).append(dag)
        self._in_force, self._producers = in_force, producers

    def of(self, dag: int) -> tuple[str, ...]:
        """Return the datasets that a DAG declares."""
        return self._declared.get(self._in_force.get(dag, 0), ())

    def producers(self, uri: str) -> list[int]:
        """Return the DAGs that declare a dataset."""
        return self._producers.get(uri, [])


class ReadNeighbours:
    """Queries about what leads to datasets and what follows."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._outlets = DeclaredOutlets()

    async def count_producers(self, uris: Iterable[str]) -> dict[str, int]:
        """Return how many DAGs declare each dataset as an outlet."""
        async with self._database.connection() as connection:
            await self._outlets.refresh(connection)
        return {uri: len(self._outlets.producers(uri)) for uri in uris}

    async def around(self, uri: str, *, up: int, down: int, limit: int) -> DatasetGraph:
        """Return a dataset with the DAGs and datasets around it.

        Args:
            uri: The dataset.
            up: How many DAGs far to go towards what leads to it.
            down: How many DAGs far to go towards what follows.
            limit: How many nodes at most.

        Raises:
            NotFound: The dataset does not exist.
        """
        async with self._database.connection() as connection:
            if await connection.fetchval(SQL["find_dataset"], uri) is None:
                raise NotFound("dataset", uri)
            await self._outlets.refresh(connection)
            walk = _Walk(connection, self._outlets, uri, limit)
            for step in range(max(up, down)):
                # In turns, so that a limit cuts off what is far rather than one of the sides.
                if step < up:
                    await walk.go_up(step)
                if step < down:
                    await walk.go_down(step)
            dags = await connection.fetch(SQL["read_graph_dags"], list(walk.dags))
            datasets = await connection.fetch(SQL["read_graph_datasets"], list(walk.datasets))
        return _graph(uri, walk, dags, datasets)


class _Walk:
    """A walk along edges, breadth first.

    Attributes:
        datasets: URI → how many datasets away: below 0 for what leads to it.
        dags: Number of the DAG → likewise, of the side from which it was found.
        edges: Each from one end of it to the other.
        complete: Whether nothing was left out for lack of room.
    """

    def __init__(
        self, connection: Connection, outlets: DeclaredOutlets, uri: str, limit: int
    ) -> None:
        self._connection = connection
        self._outlets = outlets
        self._limit = limit
        self.datasets = {uri: 0}
        self.dags: dict[int, int] = {}
        self.edges: set[tuple[str | int, str | int]] = set()
        self.complete = True

    async def go_up(self, step: int) -> None:
        """Add the DAGs that declare the datasets of a step, and what these take."""
        found = []
        for uri in [uri for uri, at in self.datasets.items() if at == -step]:
            for dag in self._outlets.producers(uri):
                if self._add(self.dags, dag, -step - 1):
                    self.edges.add((dag, uri))
                    found.append(dag)
        for row in await self._connection.fetch(SQL["list_inputs_of_dags"], found):
            if self._add(self.datasets, row["uri"], -step - 1):
                self.edges.add((row["uri"], row["dag"]))

    async def go_down(self, step: int) -> None:
        """Add the DAGs that subscribe to the datasets of a step, and what these declare."""
        uris = [uri for uri, at in self.datasets.items() if at == step]
        for row in await self._connection.fetch(SQL["list_takers_of_datasets"], uris):
            dag = row["dag"]
            if not self._add(self.dags, dag, step + 1):
                continue
            self.edges.add((row["uri"], dag))
            for uri in self._outlets.of(dag):
                if self._add(self.datasets, uri, step + 1):
                    self.edges.add((dag, uri))

    # One method for both kinds of keys: URIs, and numbers of DAGs.
    def _add(self, nodes: dict, key: str | int, at: int) -> bool:  # type: ignore[type-arg]
        """Add a node if there is room; return whether the walk has it."""
        if key not in nodes:
            if len(self.datasets) + len(self.dags) >= self._limit:
                self.complete = False
                return False
            nodes[key] = at
        return True


def _graph(
    uri: str, walk: _Walk, dags: list[asyncpg.Record], datasets: list[asyncpg.Record]
) -> DatasetGraph:
    nodes: list[GraphNodeView] = []
    places: dict[str | int, int] = {}
    for row in datasets:
        places[row["uri"]] = len(nodes)
        nodes.append(
            GraphNodeView(
                kind="dataset",
                name=row["uri"],
                step=walk.datasets[row["uri"]],
                last_event_at=row["last_at"],
                stale=row["stale"],
                held=row["held"],
            )
        )
    # Outlets that no event and no schedule has named yet have no row.
    for name in walk.datasets.keys() - places.keys():
        places[name] = len(nodes)
        nodes.append(GraphNodeView(kind="dataset", name=name, step=walk.datasets[name]))
    for row in dags:
        places[row["id"]] = len(nodes)
        nodes.append(
            GraphNodeView(
                kind="dag",
                name=row["dag_id"],
                step=walk.dags[row["id"]],
                state=row["state"],
                paused=row["paused"],
            )
        )
    edges = [
        (places[one], places[other])
        for one, other in walk.edges
        if one in places and other in places
    ]
    return DatasetGraph(dataset=uri, nodes=nodes, edges=sorted(edges), complete=walk.complete)
