"""The DAG files that a runner has imported."""

from collections import OrderedDict

import msgspec

from pubsubflow.authoring.dag import DAG
from pubsubflow.authoring.loading.importing import import_dag_file
from pubsubflow.errors import DefinitionError
from pubsubflow.model.spec import SourceBundle

_KEPT_FILES = 64


class KnownDag:
    """An imported DAG, with what its runs need to know of it at hand.

    Attributes:
        dag: The DAG.
        inputs: Per node, the nodes whose results are arguments.
        mapped: Per node, whether it has one instance per element.
        factors: Per node, for each factor its name and the node that gives it, or None.
    """

    def __init__(self, dag: DAG) -> None:
        self.dag = dag
        tasks = dag.to_spec("", "").tasks
        self.inputs = tuple(task.inputs for task in tasks)
        self.mapped = tuple(task.mapped for task in tasks)
        self.factors = tuple(
            tuple((factor.name, factor.node) for factor in task.factors) for task in tasks
        )


class Catalog:
    """Imports a file when its first task comes, and keeps the files used last."""

    def __init__(self) -> None:
        self._bundles: dict[str, SourceBundle] = {}
        self._files: OrderedDict[str, dict[str, KnownDag]] = OrderedDict()

    def add(self, data: bytes) -> None:
        """Take an encoded bundle."""
        bundle = msgspec.msgpack.decode(data, type=SourceBundle)
        self._bundles[bundle.hash] = bundle

    def find(self, source: str, dag_id: str) -> KnownDag:
        """Return a DAG if its file is imported and not forgotten.

        Raises:
            KeyError: The file is not imported yet.
            DefinitionError: The file has no such DAG.
        """
        dags = self._files[source]
        self._files.move_to_end(source)
        if dag_id not in dags:
            raise DefinitionError(
                f"there is no DAG {dag_id!r} in this file where it is imported now; "
                "make DAG ids independent of machine and time",
                file=self._bundles[source].file,
            )
        return dags[dag_id]

    def load(self, source: str, dag_id: str) -> KnownDag:
        """Return a DAG, after importing its file if need be; raises what the file raises."""
        if source not in self._files:
            dags = import_dag_file(self._bundles[source])
            self._files[source] = {name: KnownDag(dag) for name, dag in dags.items()}
            while len(self._files) > _KEPT_FILES:
                self._files.popitem(last=False)
        return self.find(source, dag_id)
