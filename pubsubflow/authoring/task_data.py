"""Task data: what a running task reads of other tasks and of the store, at its first use."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec.structs import replace

from pubsubflow.authoring.runtime import results
from pubsubflow.authoring.runtime.host import TaskHost
from pubsubflow.authoring.runtime.result_keys import NO_DEFAULT, ResultAddress
from pubsubflow.authoring.source_location import definition_error, suggestion
from pubsubflow.authoring.tasks.graph import Node
from pubsubflow.errors import NotFound, ResultNotFound
from pubsubflow.model.connections import Connection
from pubsubflow.model.values.state import StateValue
from pubsubflow.model.values.variables import Variable
from pubsubflow.model.wire.messages import RunInfo
from pubsubflow.model.wire.outputs import PulledValues
from pubsubflow.model.wire.task_questions import TaskQuestion
from pubsubflow.model.wire.worker_requests import RETURN_VALUE, PreviousRun, PullRequest

_UNREAD: Final[Any] = object()


class TaskData:
    """The data of one attempt, as its Context reads it.

    Args:
        nodes: The nodes of the DAG by number.
        node: The task's.
        info: The run.
        host: The process that runs it.
        inputs: Node → decoded result; what is fetched is added.
        map_index: Its own.

    Attributes:
        dag: The DAG as its file makes it.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        node: Node,
        info: RunInfo,
        host: TaskHost,
        inputs: dict[int, Any],
        map_index: int,
    ) -> None:
        self.dag = node.graph
        self._nodes = nodes
        self._node = node
        self._info = info
        self._host = host
        self._inputs = inputs
        self._map_index = map_index
        self._variables: dict[str, Variable | None] = {}
        self._previous = _UNREAD

    def result(self, task_id: str) -> Any:
        """Return the result of an upstream task.

        Raises:
            DefinitionError: It is not upstream of this task.
        """
        # Results that are not arguments are not sent along: they are fetched at the first use.
        wanted = self._nodes.index(self._upstream(task_id, "ctx.result"))
        if wanted not in self._inputs:
            self._inputs[wanted] = results.decode(self._host.fetch_result(wanted))
        return self._inputs[wanted]

    def pull(self, address: ResultAddress, default: Any = NO_DEFAULT) -> Any:
        """Return what a task has left under a key; of a mapped one the list of its instances'.

        Raises:
            DefinitionError: A task of this run is not upstream of this one.
            ResultNotFound: There is nothing, and no default.
        """
        own = address.run_id in (None, self._info.run_id) and address.dag_id in (
            None,
            self._info.dag_id,
        )
        if own:
            node = self._upstream(address.task_id, "ctx.pull")
            number = self._nodes.index(node)
            if address.key == RETURN_VALUE and address.map_index is None:
                known = self._inputs.get(number)
                # None may stand for a task that was skipped.
                if known is not None:
                    return known
            if address.map_index is None and node.mapping and node.mapping is self._node.mapping:
                # In a mapped group an instance sees those of its own index.
                address = replace(address, map_index=self._map_index)
        found = self._host.fetch_pulled(self._request(address, own=own))
        if found.problem is not None:
            return _or_default(default, found.problem)
        values = [each for each in _values(found, address.key) if each is not NO_DEFAULT]
        if found.mapped and address.map_index is None:
            return values
        if values:
            return values[0]
        return _or_default(default, _nothing(address, found))

    def left_values(self, address: ResultAddress) -> list[Any]:
        """Return what the instances of any task have left under a key, in order of their index."""
        request = self._request(address, own=address.dag_id is None)
        found = self._host.fetch_pulled(replace(request, early=True))
        if found.problem is not None:
            return []
        return [each for each in _values(found, address.key) if each is not NO_DEFAULT]

    def _request(self, address: ResultAddress, *, own: bool) -> PullRequest:
        return PullRequest(
            self._info.key,
            address.task_id,
            address.key,
            address.map_index,
            None if own else address.run_id,
            None if own else address.dag_id,
        )

    def connection(self, name: str) -> Connection:
        """Return a connection with its secrets."""
        return self._host.fetch_connection(name)

    def variable(self, name: str) -> Variable | None:
        """Return a variable, as it was at its first use in this attempt; None if it is not set."""
        if name not in self._variables:
            try:
                self._variables[name] = self._host.fetch_variable(name)
            except NotFound:
                self._variables[name] = None
        return self._variables[name]

    def state(self, name: str) -> StateValue:
        """Return a value of the DAG's state, as it is stored."""
        return self._host.fetch_state(name)

    def previous_success(self) -> PreviousRun | None:
        """Return the last run before this one that has succeeded."""
        if self._previous is _UNREAD:
            self._previous = self._host.fetch_previous_success()
        previous: PreviousRun | None = self._previous
        return previous

    def answer(self, question: TaskQuestion) -> Any:
        """Return the answer to a question of a task of Airflow's."""
        return self._host.fetch_answer(question)

    def forget_variable(self, name: str) -> None:
        """Read a variable anew at its next use: this attempt has changed it."""
        self._variables.pop(name, None)

    def _upstream(self, task_id: str, method: str) -> Node:
        known = ancestors(self._node)
        if task_id in known:
            return known[task_id]
        hint = suggestion(task_id, known) if known else "; it has none"
        raise definition_error(
            f"{method}({task_id!r}): it is not upstream of this task{hint}",
            dag_id=self._info.dag_id,
            task_id=self._node.task_id,
        )


def ancestors(node: Node) -> Mapping[str, Node]:
    """Return all that comes before a node, by task id."""
    found: dict[str, Node] = {}
    waiting = list(node.upstream)
    while waiting:
        before = waiting.pop()
        if before.task_id not in found:
            found[before.task_id] = before
            waiting.extend(before.upstream)
    return found


def _values(found: PulledValues, key: str) -> list[Any]:
    """Return the value of each instance, NO_DEFAULT where it has none under the key."""
    values = []
    for _, data, whole in found.values:
        value = results.decode(bytes(data))
        if whole and key != RETURN_VALUE:
            value = value.get(key, NO_DEFAULT) if isinstance(value, dict) else NO_DEFAULT
        values.append(value)
    return values


def _or_default(default: Any, problem: str) -> Any:
    if default is NO_DEFAULT:
        raise ResultNotFound(f"{problem}; give ctx.pull() a default if that may be")
    return default


def _nothing(address: ResultAddress, found: PulledValues) -> str:
    place = "" if address.map_index is None else f", instance {address.map_index},"
    text = f"task {address.task_id!r}{place} has left nothing under {address.key!r}"
    return f"{text}; its keys: {', '.join(found.keys)}" if found.keys else text
