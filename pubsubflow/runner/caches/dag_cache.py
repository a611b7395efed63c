"""The DAG cache: the DAG files that a runner has imported, those used last."""

import msgspec

from pubsubflow.authoring.bind import RunnableDag
from pubsubflow.authoring.dag import DAG
from pubsubflow.authoring.dag_files import BundleFolder
from pubsubflow.errors import DefinitionError
from pubsubflow.model.recent import Recent
from pubsubflow.model.source.bundles import DagSource
from pubsubflow.model.source.graphs import graph_difference
from pubsubflow.runner.protocol import RunnerSource

_CACHED_FILES = 64
_CACHED_DAGS = 1024


class DagCache:
    """Imports a DAG file at its first task, and keeps the files used last."""

    def __init__(self) -> None:
        # Kept when the imported files are dropped: the worker sends each source to a process once.
        self._sources: dict[str, RunnerSource] = {}
        self._files: Recent[str, dict[str, DAG]] = Recent(_CACHED_FILES)
        self._dags: Recent[str, RunnableDag] = Recent(_CACHED_DAGS)

    def add(self, data: bytes) -> None:
        """Add an encoded RunnerSource."""
        found = msgspec.msgpack.decode(data, type=RunnerSource)
        self._sources[found.source.source] = found

    def find(self, source: str) -> RunnableDag | None:
        """Return the DAG of a source whose file is imported already, or None."""
        return self._dags.get(source)

    def load(self, source: str) -> RunnableDag:
        """Return the DAG of a source, after importing its file where needed.

        Raises:
            DefinitionError: The file does not make the graph that the run began with.
            BaseException: Whatever the file raises.
        """
        found = self._sources[source]
        wanted = found.source
        # Of a file that uses variables one copy for each set of values.
        key = f"{wanted.file}\0{sorted(wanted.variables.items())}"
        dags = self._files.get(key)
        if dags is None:
            folder = BundleFolder.enter(found.folder, found.root, found.kind)
            dags = folder.dags(wanted.file, wanted.variables)
            self._files.put(key, dags)
        dag = RunnableDag(_checked(dags, wanted, found.root), wanted.tasks)
        self._dags.put(source, dag)
        return dag


def _checked(dags: dict[str, DAG], wanted: DagSource, root: str) -> DAG:
    """Return the DAG of a source, if its graph is that of the run's version."""
    file = f"{root}/{wanted.file}"
    dag = dags.get(wanted.dag_id)
    if dag is None:
        raise DefinitionError(
            "the file does not make this DAG where it is imported now; make DAG ids independent "
            "of machine, environment and time",
            file=file,
            dag_id=wanted.dag_id,
        )
    difference = graph_difference(wanted.tasks, dag.to_spec("", "").tasks)
    if difference is not None:
        raise DefinitionError(
            f"{difference}; no task was run in place of another. Make the graph independent of "
            "machine, environment and time, or start a new run",
            file=file,
            dag_id=wanted.dag_id,
        )
    return dag
