"""The DAG cache: the DAG files that a runner has imported, those used last."""

import msgspec

from pubsubflow.authoring.dag import DAG
from pubsubflow.authoring.dag_files import import_dag_file
from pubsubflow.errors import DefinitionError
from pubsubflow.model.recent import Recent
from pubsubflow.model.spec import SourceBundle

_CACHED_FILES = 64


class ImportedDag:
    """An imported DAG, with what its runs need to know of it at hand.

    Attributes:
        dag: The DAG.
        inputs: Per node, the nodes whose results are arguments.
        mapped: Per node, whether it has one instance per element.
        mapped_arguments: Per node, for each mapped argument its name and the node that gives its
            elements, or None.
    """

    def __init__(self, dag: DAG) -> None:
        self.dag = dag
        tasks = dag.to_spec("", "").tasks
        self.inputs = tuple(task.inputs for task in tasks)
        self.mapped = tuple(task.mapped for task in tasks)
        self.mapped_arguments = tuple(
            tuple((argument.name, argument.node) for argument in task.mapped_arguments)
            for task in tasks
        )


class DagCache:
    """Imports a DAG file at its first task, and keeps the files used last."""

    def __init__(self) -> None:
        # Kept when the imported files are dropped: the worker sends each bundle to a process once.
        self._bundles: dict[str, SourceBundle] = {}
        self._files: Recent[str, dict[str, ImportedDag]] = Recent(_CACHED_FILES)

    def add(self, data: bytes) -> None:
        """Add an encoded source bundle."""
        bundle = msgspec.msgpack.decode(data, type=SourceBundle)
        self._bundles[bundle.hash] = bundle

    def find(self, source: str, dag_id: str) -> ImportedDag | None:
        """Return a DAG, or None when its file is not imported yet.

        Raises:
            DefinitionError: The file does not define the DAG.
        """
        dags = self._files.get(source)
        return None if dags is None else self._select(dags, source, dag_id)

    def load(self, source: str, dag_id: str) -> ImportedDag:
        """Return a DAG, after importing its file where needed; raises what the file raises."""
        dags = self._files.get(source)
        if dags is None:
            imported = import_dag_file(self._bundles[source])
            dags = {name: ImportedDag(dag) for name, dag in imported.items()}
            self._files.put(source, dags)
        return self._select(dags, source, dag_id)

    def _select(self, dags: dict[str, ImportedDag], source: str, dag_id: str) -> ImportedDag:
        if dag_id not in dags:
            raise DefinitionError(
                f"DAG {dag_id!r} is not in this file where it is imported now; "
                "make DAG ids independent of machine and time",
                file=self._bundles[source].file,
            )
        return dags[dag_id]
