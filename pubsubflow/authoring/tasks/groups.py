"""Task groups and `chain`: many tasks that are named, configured and ordered as one."""

import functools
from collections.abc import Callable, Mapping
from itertools import pairwise
from types import TracebackType
from typing import Any, Self

from pubsubflow.authoring.source_location import definition_error
from pubsubflow.authoring.tasks.graph import (
    Chainable,
    Graph,
    Node,
    Reference,
    close_graph,
    current_graph,
    open_graph,
    set_order,
)
from pubsubflow.authoring.tasks.mapped.group_mapping import (
    ExpandInput,
    GroupMapping,
    check_group_call,
    element_references,
    refuse_nested,
)
from pubsubflow.authoring.tasks.mapped.mapping import expand_inputs, expand_kwargs_input
from pubsubflow.authoring.tasks.options import check_defaults, check_id
from pubsubflow.authoring.tasks.setup_teardown import last_tasks


class TaskGroup(Chainable):
    """A group of tasks under one name; made with `task_group`.

    Attributes:
        full_id: Its id with those of the groups around it.
        members: The tasks made inside, including those of nested groups.
        result: The decorated function's return value.
        mapping: What it is mapped over, if it is.
    """

    def __init__(
        self, group_id: str, *, prefix: bool, defaults: dict[str, Any], dag: object = None
    ) -> None:
        self._dag = dag
        self.group_id = check_id(group_id, "group_id")
        self.prefix = group_id if prefix else ""
        self.full_id = group_id
        self.defaults = defaults
        self.members: list[Node] = []
        self.mapping: GroupMapping | None = None
        self.result: Any = None
        self._graph: Graph | None = None

    def __enter__(self) -> Self:
        if self._graph is not None:
            raise definition_error(
                f"group {self.group_id!r} is used twice; make one for each `with`"
            )
        self._graph = current_graph(f"group {self.group_id!r}", self._dag)
        self.full_id = self._graph.group_id(self.group_id)
        self._graph.groups.append(self)
        # What is made inside belongs to the group's DAG, whichever was open before.
        open_graph(self._graph)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._graph is not None:
            self._graph.groups.pop()
            close_graph()
            # Without these, a task that takes no element would begin before their number is known.
            for mapped in () if self.mapping is None else self.mapping.inputs:
                for node in self.roots() if isinstance(mapped.values, Reference) else ():
                    node.run_after(mapped.values.node)

    def roots(self) -> list[Node]:
        """Return the members without another member upstream."""
        members = set(self.members)
        return [node for node in self.members if not members & node.upstream.keys()]

    def leaves(self) -> list[Node]:
        """Return the members without another member downstream, teardowns aside."""
        # What follows a group does not wait for its clean-up, unless there is nothing else.
        last = last_tasks(self.members)
        before = {node for member in self.members for node in member.upstream}
        return last or [node for node in self.members if node not in before]


class GroupFunction:
    """A function declared with `@task_group`; each call adds one group."""

    def __init__(self, function: Callable[..., Any], options: Mapping[str, Any]) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._options = dict(options)
        self._options.setdefault("group_id", function.__name__)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Add a group of the function's tasks; return the function's value, or else the group."""
        return self._add(None, args, kwargs)

    def partial(self, **kwargs: Any) -> "PartialGroup":
        """Fix some arguments of a group that is then mapped with `expand`."""
        return PartialGroup(self, kwargs)

    def expand(self, **lists: Any) -> Any:
        """Add a group whose tasks run once for each element, each element for itself.

        Args:
            lists: Keyword → a list, or the reference to a result that is one. The last one
                changes fastest.

        Raises:
            DefinitionError: It is in a mapped group, or the arguments do not fit the function.
        """
        return PartialGroup(self, {}).expand(**lists)

    def expand_kwargs(self, rows: Any) -> Any:
        """Add a group mapped over a list of dicts of arguments, or a result that is one."""
        return PartialGroup(self, {}).expand_kwargs(rows)

    def add_mapped(
        self, fixed: Mapping[str, Any], inputs: Callable[[str], tuple[ExpandInput, ...]]
    ) -> Any:
        """Add a mapped group.

        Args:
            fixed: Arguments that are the same for all elements.
            inputs: Returns what it is mapped over, given the group's id.
        """
        group_id = self._options["group_id"]
        graph = current_graph(f"group {group_id!r}", self._options.get("dag"))
        refuse_nested(graph.groups, f"group {group_id!r}")
        group_id = _free_group_id(graph, group_id)
        mapping = GroupMapping(graph.group_id(group_id), inputs(group_id))
        kwargs = dict(fixed) | element_references(mapping, self._function, fixed)
        values = mapping.inputs[0].values
        rows = values if not mapping.inputs[0].name and isinstance(values, list) else ()
        check_group_call(self._function, kwargs, {name for row in rows for name in row})
        return self._add(mapping, (), kwargs)

    def _add(
        self, mapping: GroupMapping | None, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        options = dict(self._options)
        graph = current_graph(f"group {options['group_id']!r}", options.get("dag"))
        options["group_id"] = _free_group_id(graph, options["group_id"])
        group = _group(**options)
        group.mapping = mapping
        with group:
            group.result = self._function(*args, **kwargs)
        return group if group.result is None else group.result


class PartialGroup:
    """A group with some arguments fixed, to be mapped over others."""

    def __init__(self, group: GroupFunction, kwargs: Mapping[str, Any]) -> None:
        self._group = group
        self._kwargs = dict(kwargs)

    def expand(self, **lists: Any) -> Any:
        """Map over lists or results; see `GroupFunction.expand`."""
        return self._group.add_mapped(
            self._kwargs, lambda name: expand_inputs(lists, self._kwargs, name)
        )

    def expand_kwargs(self, rows: Any) -> Any:
        """Map over dicts of arguments; see `GroupFunction.expand_kwargs`."""
        return self._group.add_mapped(
            self._kwargs, lambda name: (expand_kwargs_input(rows, self._kwargs, name),)
        )


class _TaskGroup(TaskGroup):
    """A group that is also a decorator: `@task_group(group_id="…")`."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._given = dict(options)
        given = {"group_id": "group"} | self._given
        # Checks the options now: a bad one is an error of this line, not of the first call.
        inner = _group(**given)
        super().__init__(
            inner.group_id,
            prefix=bool(inner.prefix),
            defaults=inner.defaults,
            dag=given.get("dag"),
        )

    def __enter__(self) -> Self:
        if "group_id" not in self._given:
            raise definition_error("a task_group in a `with` needs an id: task_group('extract')")
        return super().__enter__()

    def __call__(self, function: Callable[..., Any]) -> GroupFunction:
        """Declare a function as a group."""
        return GroupFunction(function, self._given)


def task_group(
    group_id: str | Callable[..., Any] | None = None,
    *,
    prefix_group_id: bool = True,
    default_args: Mapping[str, Any] | None = None,
    map_index_template: str | None = None,
    dag: object = None,
) -> Any:
    """Group tasks under one name, by a `with` block or as a decorator.

    `with task_group("extract"):` and `@task_group` both work.

    Args:
        group_id: Name of the group; the function's name when left out.
        prefix_group_id: Whether task ids start with `group_id.`.
        default_args: Task options for the tasks inside.
        map_index_template: Names the instances of the tasks inside, when the group is mapped.
        dag: Its DAG; the open one when None.

    Raises:
        DefinitionError: The id or an option is invalid.
    """
    if callable(group_id):
        return GroupFunction(group_id, {})
    options: dict[str, Any] = {
        "prefix_group_id": prefix_group_id,
        "default_args": default_args,
        "map_index_template": map_index_template,
        "dag": dag,
    }
    if group_id is not None:
        options["group_id"] = group_id
    return _TaskGroup(options)


def _group(
    group_id: str,
    *,
    prefix_group_id: bool = True,
    default_args: Any = None,
    map_index_template: str | None = None,
    dag: object = None,
) -> TaskGroup:
    defaults = check_defaults(default_args)
    if map_index_template is not None:
        defaults |= check_defaults({"map_index_template": map_index_template})
    return TaskGroup(group_id, prefix=prefix_group_id, defaults=defaults, dag=dag)


def _free_group_id(graph: Graph, group_id: str) -> str:
    """Return the id, numbered when tasks with that prefix exist."""
    found, count = group_id, 0
    while any(name.startswith(graph.full_id(found) + ".") for name in graph.nodes):
        count += 1
        found = f"{group_id}__{count}"
    return found


def chain(*steps: Any) -> None:
    """Order the steps one after the other; two neighbouring lists are joined pairwise.

    Raises:
        DefinitionError: A step is not a task, or two neighbouring lists differ in length.
    """
    for before, after in pairwise(steps):
        if not (isinstance(before, list | tuple) and isinstance(after, list | tuple)):
            set_order(before, after)
            continue
        if len(before) != len(after):
            raise definition_error(
                f"chain() joins lists of one length pairwise; these have {len(before)} "
                f"and {len(after)} tasks; put a task between them"
            )
        for one, other in zip(before, after, strict=True):
            set_order(one, other)
