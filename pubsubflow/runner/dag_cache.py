"""The DAG cache: the DAG files that a runner has imported, those used last."""

import msgspec

from pubsubflow.authoring.bind import RunnableDag
from pubsubflow.authoring.dag_files import import_dag_file
from pubsubflow.errors import DefinitionError
from pubsubflow.model.recent import Recent
from pubsubflow.model.spec import SourceBundle

_CACHED_FILES = 64


class DagCache:
    """Imports a DAG file at its first task, and keeps the files used last."""

    def __init__(self) -> None:
        # Kept when the imported files are dropped: the worker sends each bundle to a process once.
        self._bundles: dict[str, SourceBundle] = {}
        self._files: Recent[str, dict[str, RunnableDag]] = Recent(_CACHED_FILES)

    def add(self, data: bytes) -> None:
        """Add an encoded source bundle."""
        bundle = msgspec.msgpack.decode(data, type=SourceBundle)
        self._bundles[bundle.hash] = bundle

    def find(self, source: str, dag_id: str) -> RunnableDag | None:
        """Return a DAG of a file that is imported already, or None."""
        dags = self._files.get(source)
        return None if dags is None else dags.get(dag_id)

    def load(self, source: str, dag_id: str) -> RunnableDag:
        """Return a DAG, after importing its file where needed.

        Raises:
            DefinitionError: The file does not define the DAG.
            BaseException: Whatever the file raises.
        """
        dags = self._files.get(source)
        if dags is None:
            imported = import_dag_file(self._bundles[source])
            dags = {name: RunnableDag(dag) for name, dag in imported.items()}
            self._files.put(source, dags)
        if dag_id not in dags:
            raise DefinitionError(
                f"DAG {dag_id!r} is not in this file where it is imported now; "
                "make DAG ids independent of machine and time",
                file=self._bundles[source].file,
            )
        return dags[dag_id]
