"""The graph of a DAG while it is being written: nodes, references between them, groups."""

from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from itertools import pairwise
from typing import Any, Literal, NoReturn, Protocol

from pubsubflow.authoring.options import TaskOptions, check_id
from pubsubflow.authoring.source_location import Place, caller, mistake, name_dag
from pubsubflow.authoring.task_body import Body
from pubsubflow.authoring.toposort import topological

Role = Literal["task", "branch", "short_circuit", "setup", "teardown"]


class Chainable:
    """Something that `>>` and `<<` can order: a task, a reference to its result, a group."""

    __slots__ = ()

    def heads(self) -> Iterable["Node"]:
        """Return the nodes that wait for what comes before."""
        raise NotImplementedError

    def tails(self) -> Iterable["Node"]:
        """Return the nodes that what comes after waits for."""
        raise NotImplementedError

    def __rshift__(self, other: Any) -> Any:
        """Run `other` after this; return `other`."""
        order(self, other)
        return other

    def __lshift__(self, other: Any) -> Any:
        """Run this after `other`; return `other`."""
        order(other, self)
        return other

    def __rrshift__(self, other: Any) -> Any:
        """Run this after every member of a list."""
        order(other, self)
        return self

    def __rlshift__(self, other: Any) -> Any:
        """Run every member of a list after this."""
        order(self, other)
        return self


class Reference(Chainable):
    """The result of a task, known when the run gets there; pass it to other tasks.

    `reference["key"]` refers to a part of the result.
    """

    __slots__ = ("node", "path")

    def __init__(self, node: "Node", path: tuple[Any, ...] = ()) -> None:
        self.node = node
        self.path = path

    def __getitem__(self, key: str | int) -> "Reference":
        return Reference(self.node, (*self.path, key))

    def __iter__(self) -> NoReturn:
        raise mistake(
            "a task's result is known only when it has run: "
            "loop over it inside a task, or map a task over it with .expand()",
            task_id=self.node.task_id,
        )

    def __repr__(self) -> str:
        return f"<result of {self.node.task_id}{''.join(f'[{key!r}]' for key in self.path)}>"

    def heads(self) -> Iterable["Node"]:
        """Return the task itself."""
        return (self.node,)

    def tails(self) -> Iterable["Node"]:
        """Return the task itself."""
        return (self.node,)

    def pick(self, value: Any) -> Any:
        """Return the part of the task's result that this refers to."""
        for key in self.path:
            value = value[key]
        return value


class MappedOver:
    """One mapped argument.

    Attributes:
        name: Keyword of the task; empty for `expand_kwargs`.
        values: The elements, or the reference that gives them when it is known.
    """

    __slots__ = ("name", "values")

    def __init__(self, name: str, values: "list[Any] | Reference") -> None:
        self.name = name
        self.values = values


class Node(Chainable):
    """One task of one DAG.

    Attributes:
        upstream: Nodes that come before → where that was said.
        inputs: Nodes whose results are arguments.
        origin: What it was made from; another task made from the same gets a number.
    """

    def __init__(
        self,
        graph: "Graph",
        task_id: str,
        body: Body,
        options: TaskOptions,
        *,
        role: Role = "task",
        factors: tuple[MappedOver, ...] = (),
        origin: object = None,
    ) -> None:
        self.graph = graph
        self.task_id = task_id
        self.body = body
        self.options = options
        self.role = role
        self.factors = factors
        self.origin = origin
        self.place = caller()
        self.upstream: dict[Node, Place | None] = {}
        self.inputs: set[Node] = set()
        graph.add(self)

    def heads(self) -> Iterable["Node"]:
        """Return the node itself."""
        return (self,)

    def tails(self) -> Iterable["Node"]:
        """Return the node itself."""
        return (self,)

    def wire(self) -> None:
        """Turn the references among the arguments into dependencies; may be repeated.

        Raises:
            DefinitionError: A reference belongs to another DAG.
        """
        for factor in self.factors:
            if isinstance(factor.values, Reference):
                self.after(factor.values.node, self.place)
            else:
                self._depend(factor.values)
        self._depend(self.body.values())

    def _depend(self, values: list[object]) -> None:
        for reference in references(values):
            self.after(reference.node, self.place)
            self.inputs.add(reference.node)

    def after(self, node: "Node", place: Place | None = None) -> None:
        """Let this node run after another one.

        Raises:
            DefinitionError: The other is of another DAG, or this node itself.
        """
        if node in self.upstream:
            return
        place = place or caller()
        if node.graph is not self.graph:
            raise mistake(
                f"task {node.task_id!r} belongs to DAG {node.graph.dag_id!r}; "
                "tasks of two DAGs meet through a dataset only",
                place=place,
                dag_id=self.graph.dag_id,
                task_id=self.task_id,
            )
        if node is self:
            raise mistake(
                "a task cannot wait for itself",
                place=place,
                dag_id=self.graph.dag_id,
                task_id=self.task_id,
            )
        self.upstream[node] = place
        self.graph.changed()


class Graph:
    """The nodes of a DAG by task id, in the order they were made.

    Attributes:
        groups: Open task groups, outermost first.
        defaults: Checked task options that every task starts from.
    """

    def __init__(self, dag_id: str, defaults: dict[str, Any]) -> None:
        self.dag_id = dag_id
        self.defaults = defaults
        self.nodes: dict[str, Node] = {}
        self.groups: list[OpenGroup] = []
        self._order: tuple[Node, ...] | None = None

    def add(self, node: Node) -> None:
        """Take a node in.

        Raises:
            DefinitionError: There is a task by its id already.
        """
        first = self.nodes.get(node.task_id)
        if first is not None:
            where = f" at line {first.place.line}" if first.place else ""
            raise mistake(
                f"there is a task by this id already{where}; give one of them another task_id",
                dag_id=self.dag_id,
                task_id=node.task_id,
            )
        self.nodes[node.task_id] = node
        for group in self.groups:
            group.members.append(node)
        self.changed()

    def changed(self) -> None:
        """Forget the order worked out before."""
        self._order = None

    def ordered(self) -> tuple[Node, ...]:
        """Return the nodes, upstream first, otherwise in the order they were made.

        Raises:
            DefinitionError: They form a circle.
        """
        if self._order is None:
            for node in self.nodes.values():
                node.wire()
            self._order = self._sorted()
        return self._order

    def _sorted(self) -> tuple[Node, ...]:
        upstream = {node: list(node.upstream) for node in self.nodes.values()}
        found, circle = topological(upstream)
        if circle:
            names = " >> ".join(node.task_id for node in circle)
            places = [after.upstream[before] for before, after in pairwise(circle)]
            raise mistake(
                f"the tasks wait for each other in a circle: {names}",
                place=max((place for place in places if place), default=None),
                dag_id=self.dag_id,
                task_id=circle[0].task_id,
            )
        return tuple(found)

    def full_id(self, task_id: str) -> str:
        """Return the id with the prefixes of the open groups."""
        return ".".join([*(group.prefix for group in self.groups if group.prefix), task_id])

    def free_id(self, task_id: str, origin: object) -> str:
        """Return the id, with `__1`, `__2` … when tasks made from the same origin have it."""
        found, count = task_id, 0
        while origin and found in self.nodes and self.nodes[found].origin is origin:
            count += 1
            found = f"{task_id}__{count}"
        return found

    def options(self, given: dict[str, Any]) -> TaskOptions:
        """Return the options of a task: its own over the groups' over the DAG's."""
        merged = dict(self.defaults)
        for group in self.groups:
            merged |= group.defaults
        return TaskOptions(**(merged | given))


class OpenGroup(Protocol):
    """What a graph knows about a task group.

    Attributes:
        prefix: Put before task ids; empty to leave them as they are.
        defaults: Checked task options.
        members: The nodes made inside.
    """

    prefix: str
    defaults: dict[str, Any]
    members: list[Node]


_OPEN: ContextVar[tuple[Graph, ...]] = ContextVar("pubsubflow_open_graphs", default=())


def enter(graph: Graph) -> None:
    """Let new tasks belong to this graph until `leave`."""
    _OPEN.set((*_OPEN.get(), graph))
    name_dag(graph.dag_id)


def leave() -> None:
    """Go back to the graph that was open before."""
    rest = _OPEN.get()[:-1]
    _OPEN.set(rest)
    name_dag(rest[-1].dag_id if rest else None)


def current(what: str) -> Graph:
    """Return the innermost open graph.

    Raises:
        DefinitionError: None is open.
    """
    opened = _OPEN.get()
    if not opened:
        raise mistake(
            f"{what} is used outside of a DAG; write it inside `with DAG(…):` or an @dag function"
        )
    return opened[-1]


def new_node(
    task_id: str,
    body: Body,
    options: dict[str, Any],
    *,
    role: Role = "task",
    factors: tuple[MappedOver, ...] = (),
    origin: object = None,
) -> Node:
    """Add a task to the open DAG.

    Args:
        task_id: Its id without the prefixes of groups.
        body: What it runs.
        options: Checked options, over the defaults.
        role: Its role in the run.
        factors: What it is mapped over.
        origin: What it is made from; a number is added when that made a task by this id.

    Raises:
        DefinitionError: No DAG is open, or the id is taken or bad.
    """
    graph = current(f"task {task_id!r}")
    full = graph.free_id(check_id(graph.full_id(task_id), "task_id"), origin)
    chosen = graph.options(options)
    return Node(graph, full, body, chosen, role=role, factors=factors, origin=origin)


def references(value: object) -> Iterator[Reference]:
    """Yield the references inside lists, tuples and dicts, however deep."""
    if isinstance(value, Reference):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from references(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from references(item)


def order(before: object, after: object) -> None:
    """Let everything in `after` run after everything in `before`; lists are allowed.

    Raises:
        DefinitionError: Something there is no task.
    """
    place = caller()
    tails = [node for item in members(before) for node in item.tails()]
    for item in members(after):
        for node in item.heads():
            for tail in tails:
                node.after(tail, place)


def members(value: object) -> list[Chainable]:
    """Return what a list holds, or the thing itself.

    Raises:
        DefinitionError: Something there is no task.
    """
    items = value if isinstance(value, list | tuple | set) else (value,)
    found: list[Chainable] = []
    for item in items:
        if not isinstance(item, Chainable):
            name = getattr(item, "__name__", None)
            hint = f"; call it: {name}()" if name else ""
            raise mistake(f"{item!r} is not a task in a DAG{hint}")
        found.append(item)
    return found
