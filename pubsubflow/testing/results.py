"""Results of an in-process run, kept in their encoded form."""

from collections.abc import Mapping
from typing import Any

from msgspec import Raw

from pubsubflow.authoring.runtime import results
from pubsubflow.errors import InvalidInput, Unavailable
from pubsubflow.model.spec import DagSpec, TaskSpec
from pubsubflow.model.wire.elements import elements_of
from pubsubflow.model.wire.messages import NOT_MAPPED, encode
from pubsubflow.model.wire.outputs import PulledValues, decode_outputs
from pubsubflow.model.wire.worker_requests import PullRequest

_NIL = b"\xc0"


class ResultMissing(InvalidInput):
    """The result of a task is needed that is not selected, and its result is not given."""


class RunResults:
    """The encoded results of a run.

    Args:
        spec: The whole DAG.
        chosen: Nodes that run.
        given: Node → encoded result of a task that does not run.
    """

    def __init__(self, spec: DagSpec, chosen: frozenset[int], given: Mapping[int, bytes]) -> None:
        self._spec = spec
        self._chosen = chosen
        self._given = given
        self._found: dict[int, dict[int, bytes]] = {}
        self._lists: dict[int, list[Raw]] = {}
        self._outputs: dict[int, dict[int, bytes]] = {}

    def put(self, node: int, map_index: int, data: bytes) -> None:
        """Store the result of an instance that succeeded."""
        # None is encoded as no bytes at all, and here "no result" is another thing.
        self._found.setdefault(node, {})[map_index] = data or _NIL

    def put_outputs(self, node: int, map_index: int, data: bytes) -> None:
        """Store what an instance has left behind besides its result."""
        if data:
            self._outputs.setdefault(node, {})[map_index] = data

    def pull(self, request: PullRequest) -> PulledValues:
        """Return what a task has left under a key, as a manager does.

        Raises:
            ResultMissing: The task is not selected and its result not given, or another run is
                meant.
        """
        if request.run_id is not None or request.dag_id is not None:
            raise ResultMissing(
                f"ctx.pull({request.task_id!r}) reads another run, and there is none in a test; "
                "read it in a task of its own, and give that one's result: results={…}"
            )
        task = next(each for each in self._spec.tasks if each.task_id == request.task_id)
        if task.node in self._given:
            given = self._given[task.node] or _NIL
            return PulledValues(((NOT_MAPPED, Raw(given), True),))
        self._encoded(task.node)
        results, outputs = self._found.get(task.node, {}), self._outputs.get(task.node, {})
        found, keys = [], dict[str, None]()
        for index in sorted({*results, *outputs}):
            if request.map_index not in (None, index):
                continue
            pushed = decode_outputs(outputs.get(index)).pushed
            keys.update(dict.fromkeys(pushed))
            if request.key in pushed:
                found.append((index, pushed[request.key], False))
            elif index in results:
                found.append((index, Raw(results[index]), True))
        return PulledValues(tuple(found), tuple(keys), mapped=task.mapped)

    def fetch(self, node: int, reader: TaskSpec, map_index: int) -> bytes:
        """Return a task's encoded result, for `ctx.result` of an instance of another.

        Raises:
            ResultMissing: The task is not selected and its result not given.
            Unavailable: The task has no result.
        """
        data = self._seen(node, reader, map_index)
        if data is None:
            raise Unavailable(f"task {self._spec.tasks[node].task_id!r} has no result")
        return data

    def input(self, node: int, reader: TaskSpec, map_index: int) -> Any:
        """Return a task's result as an argument of an instance of another; None when it has none.

        Raises:
            ResultMissing: The task is not selected and its result not given.
        """
        return results.decode(self._seen(node, reader, map_index) or b"")

    def _seen(self, node: int, reader: TaskSpec, map_index: int) -> bytes | None:
        """Return a result as an instance sees it: in its own mapped group, that of its index."""
        data = self._encoded(node)
        if not self._spec.tasks[node].shares_index(reader):
            return data
        if node in self._given:
            return bytes(elements_of(self._given[node])[map_index])
        return self._found.get(node, {}).get(map_index)

    def element(self, node: int, index: int) -> Any:
        """Return one element of a list result."""
        return results.decode(self.fetch_element(node, index))

    def fetch_element(self, node: int, index: int) -> bytes:
        """Return one encoded element of a list result."""
        if node not in self._lists:
            self._lists[node] = elements_of(self._encoded(node) or b"")
        return bytes(self._lists[node][index])

    def _encoded(self, node: int) -> bytes | None:
        if node in self._given:
            return self._given[node]
        task_id = self._spec.tasks[node].task_id
        if node not in self._chosen:
            raise ResultMissing(
                f"the result of task {task_id!r} is needed, which is not selected; "
                f"select it too, or give it: results={{{task_id!r}: ...}}"
            )
        found = self._found.get(node, {})
        if self._spec.tasks[node].mapped:
            return encode([Raw(found[index]) for index in sorted(found)])
        return found.get(NOT_MAPPED)
