"""The graph of a DAG under definition: nodes, references to their results, open groups."""

from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import Any, Literal, NoReturn

from pubsubflow.authoring.source_location import (
    SourceLocation,
    caller,
    definition_error,
    set_dag_in_errors,
)
from pubsubflow.authoring.tasks.body import Body
from pubsubflow.authoring.tasks.mapped.group_mapping import (
    ElementReference,
    ExpandInput,
    OpenGroup,
    check_member,
    members,
    refuse_nested,
)
from pubsubflow.authoring.tasks.mapped.map_expressions import Mappable
from pubsubflow.authoring.tasks.misplaced import remedy
from pubsubflow.authoring.tasks.options import TaskOptions, check_id
from pubsubflow.authoring.tasks.param_reference import ParamReference
from pubsubflow.authoring.tasks.setup_teardown import Scoped
from pubsubflow.authoring.tasks.toposort import sorted_nodes

Role = Literal["task", "branch", "short_circuit", "setup", "teardown"]


class Chainable:
    """An operand of `>>` and `<<`: a task, a reference to its result, or a group."""

    __slots__ = ()

    def roots(self) -> Iterable["Node"]:
        """Return the nodes that run first."""
        raise NotImplementedError

    def leaves(self) -> Iterable["Node"]:
        """Return the nodes that run last."""
        raise NotImplementedError

    def __rshift__(self, other: Any) -> Any:
        """Run `other` after this; return `other`."""
        set_order(self, other)
        return other

    def __lshift__(self, other: Any) -> Any:
        """Run this after `other`; return `other`."""
        set_order(other, self)
        return other

    def __rrshift__(self, other: Any) -> Any:
        """Run this after every member of a list."""
        set_order(other, self)
        return self

    def __rlshift__(self, other: Any) -> Any:
        """Run every member of a list after this."""
        set_order(self, other)
        return self


class Reference(Scoped, Chainable, Mappable):
    """The result of a task, known when the task has run; pass it to other tasks.

    `reference["key"]` refers to a part of the result.
    """

    __slots__ = ("node", "path")

    def __init__(self, node: "Node", path: tuple[Any, ...] = ()) -> None:
        self.node = node
        self.path = path

    def __getitem__(self, key: str | int) -> "Reference":
        return Reference(self.node, (*self.path, key))

    def __iter__(self) -> NoReturn:
        raise definition_error(
            "a task's result is known only when the task has run: "
            "loop over it inside a task, or map a task over it with .expand()",
            task_id=self.node.task_id,
        )

    def __repr__(self) -> str:
        return f"<result of {self.node.task_id}{''.join(f'[{key!r}]' for key in self.path)}>"

    def roots(self) -> Iterable["Node"]:
        """Return the task itself."""
        return (self.node,)

    def leaves(self) -> Iterable["Node"]:
        """Return the task itself."""
        return (self.node,)

    def select(self, result: Any) -> Any:
        """Return the part of the task's result that this refers to."""
        value = result
        for key in self.path:
            value = value[key]
        return value


class Node(Chainable):
    """One task of one DAG.

    Attributes:
        upstream: Nodes that come before → the line that ordered them.
        inputs: Nodes whose results are arguments.
        uses_params: Whether references to params are among the arguments.
        groups: The groups that it is in, the outermost first.
        mapping: What the mapped group is mapped over that it is in.
        used_elements: Mapped arguments of that group that are among its arguments.
        fails_run: Of a teardown: its failure fails the run.
        origin: The function that it was made from; another task made from it gets a number.
    """

    def __init__(
        self,
        graph: "Graph",
        task_id: str,
        body: Body,
        options: TaskOptions,
        *,
        role: Role = "task",
        expand_inputs: tuple[ExpandInput, ...] = (),
        origin: object = None,
    ) -> None:
        self.graph = graph
        self.task_id = task_id
        self.body = body
        self.options = options
        self.role = role
        self.expand_inputs = expand_inputs
        self.origin = origin
        self.location = caller()
        self.upstream: dict[Node, SourceLocation | None] = {}
        self.inputs: set[Node] = set()
        self.uses_params = False
        self.used_elements: set[str] = set()
        self.mapping = next((each.mapping for each in graph.groups if each.mapping), None)
        self.groups = tuple(group.full_id for group in graph.groups if group.full_id)
        self.fails_run = options.on_failure_fail_dagrun
        if self.mapping is not None:
            check_member(self)
        # Last, as the open groups get the node at once and read its fields.
        graph.add_node(self)

    def roots(self) -> Iterable["Node"]:
        """Return the node itself."""
        return (self,)

    def leaves(self) -> Iterable["Node"]:
        """Return the node itself."""
        return (self,)

    def add_dependencies(self) -> None:
        """Add a dependency for each reference among the arguments; may be repeated.

        Raises:
            DefinitionError: A reference belongs to another DAG.
        """
        for mapped in self.expand_inputs:
            if isinstance(mapped.values, Reference):
                self.run_after(mapped.values.node, self.location)
            else:
                self._depend_on(mapped.values)
        self._depend_on(self.body.arguments())

    def _depend_on(self, values: list[object]) -> None:
        for each in members(values):
            if isinstance(each, Reference):
                self.run_after(each.node, self.location)
                self.inputs.add(each.node)
            elif isinstance(each, ParamReference):
                self.uses_params = True
            elif isinstance(each, ElementReference):
                self._use_element(each.input)

    def _use_element(self, mapped: ExpandInput) -> None:
        self.used_elements.add(mapped.name)
        if isinstance(mapped.values, Reference):
            self.run_after(mapped.values.node, self.location)
        else:
            self._depend_on(mapped.values)

    @property
    def mapped_over(self) -> tuple[ExpandInput, ...]:
        """The arguments that it is mapped over, itself or with its group."""
        return self.mapping.inputs if self.mapping is not None else self.expand_inputs

    def run_after(self, node: "Node", location: SourceLocation | None = None) -> None:
        """Order this node after another one.

        Raises:
            DefinitionError: The other one is of another DAG, or this node itself.
        """
        if node in self.upstream:
            return
        location = location or caller()
        if node.graph is not self.graph:
            raise definition_error(
                f"task {node.task_id!r} belongs to DAG {node.graph.dag_id!r}; "
                "connect tasks of two DAGs through a dataset",
                location=location,
                dag_id=self.graph.dag_id,
                task_id=self.task_id,
            )
        if node is self:
            raise definition_error(
                "a task cannot wait for itself",
                location=location,
                dag_id=self.graph.dag_id,
                task_id=self.task_id,
            )
        self.upstream[node] = location
        self.graph.invalidate_order()


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

    def add_node(self, node: Node) -> None:
        """Add a node.

        Raises:
            DefinitionError: Another task has its id.
        """
        first = self.nodes.get(node.task_id)
        if first is not None:
            where = f" at line {first.location.line}" if first.location else ""
            raise definition_error(
                f"another task has this id{where}; give one of them another task_id",
                dag_id=self.dag_id,
                task_id=node.task_id,
            )
        self.nodes[node.task_id] = node
        for group in self.groups:
            group.members.append(node)
        self.invalidate_order()

    def group_id(self, group_id: str) -> str:
        """Return the id of a group with those of the open groups around it."""
        around = [group.full_id for group in self.groups if group.full_id]
        return f"{around[-1]}.{group_id}" if around else group_id

    def invalidate_order(self) -> None:
        """Drop the cached order."""
        self._order = None

    def ordered(self) -> tuple[Node, ...]:
        """Return the nodes, upstream first, otherwise in the order they were made.

        Raises:
            DefinitionError: They form a cycle.
        """
        if self._order is None:
            # An operator's attributes may have changed since it was made: look for references once
            # more.
            for node in self.nodes.values():
                node.add_dependencies()
            self._order = sorted_nodes(self.nodes.values(), self.dag_id)
        return self._order

    def full_id(self, task_id: str) -> str:
        """Return the id with the prefixes of the open groups."""
        return ".".join([*(group.prefix for group in self.groups if group.prefix), task_id])

    def free_id(self, task_id: str, origin: object) -> str:
        """Return the id, with `__1`, `__2` … while tasks of the same origin have it."""
        # Only calls of one function are numbered; a clash of two functions stays an error.
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


_OPEN: ContextVar[tuple[Graph, ...]] = ContextVar("pubsubflow_open_graphs", default=())


def open_graph(graph: Graph) -> None:
    """Add new tasks to this graph until `close_graph`."""
    _OPEN.set((*_OPEN.get(), graph))
    set_dag_in_errors(graph.dag_id)


def close_graph() -> None:
    """Return to the graph that was open before."""
    rest = _OPEN.get()[:-1]
    _OPEN.set(rest)
    set_dag_in_errors(rest[-1].dag_id if rest else None)


def current_graph(what: str, given: object = None) -> Graph:
    """Return the graph that was given as `dag=`, or else the innermost open one.

    Raises:
        DefinitionError: It is not a DAG, or none is open.
    """
    if isinstance(given, Graph):
        return given
    if given is not None:
        raise definition_error(f"{what}: dag={given!r} is not a DAG")
    opened = _OPEN.get()
    if not opened:
        raise definition_error(f"{what} is used outside of a DAG; {remedy(caller())}")
    return opened[-1]


def new_node(
    task_id: str,
    body: Body,
    options: dict[str, Any],
    *,
    role: Role = "task",
    expand_inputs: tuple[ExpandInput, ...] = (),
    origin: object = None,
    dag: object = None,
) -> Node:
    """Add a task to a DAG.

    Args:
        task_id: Its id without the prefixes of groups.
        body: Its work.
        options: Checked options, over the defaults.
        role: Its role in the run.
        expand_inputs: The inputs that it is mapped over.
        origin: The function that it is made from; a number is added when another task of it has
            this id.
        dag: The DAG; the open one when None.

    Raises:
        DefinitionError: A DAG is missing, or the id is taken or invalid.
    """
    graph = current_graph(f"task {task_id!r}", dag)
    if expand_inputs:
        refuse_nested(graph.groups, f"task {task_id!r}", task_id)
    full = graph.free_id(check_id(graph.full_id(task_id), "task_id"), origin)
    chosen = graph.options(options)
    return Node(graph, full, body, chosen, role=role, expand_inputs=expand_inputs, origin=origin)


def references(value: object) -> Iterator[Reference]:
    """Yield the references inside nested lists, tuples and dicts."""
    return (each for each in members(value) if isinstance(each, Reference))


def set_order(before: object, after: object) -> None:
    """Order everything in `after` after everything in `before`; lists are allowed.

    Raises:
        DefinitionError: A member is not a task.
    """
    location = caller()
    leaves = [node for item in chainables(before) for node in item.leaves()]
    for item in chainables(after):
        for node in item.roots():
            for leaf in leaves:
                node.run_after(leaf, location)


def chainables(value: object) -> list[Chainable]:
    """Return the members of a list, or the single task.

    Raises:
        DefinitionError: A member is not a task.
    """
    items = value if isinstance(value, list | tuple | set) else (value,)
    found: list[Chainable] = []
    for item in items:
        if not isinstance(item, Chainable):
            name = getattr(item, "__name__", None)
            hint = f"; call it: {name}()" if name else ""
            raise definition_error(f"{item!r} is not a task in a DAG{hint}")
        found.append(item)
    return found
