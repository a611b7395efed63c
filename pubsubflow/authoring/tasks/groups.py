"""Task groups and `chain`: many tasks that are named, configured and ordered as one."""

import functools
from collections.abc import Callable, Mapping
from itertools import pairwise
from types import TracebackType
from typing import Any, NoReturn, Self

from pubsubflow.authoring.source_location import definition_error
from pubsubflow.authoring.tasks.graph import (
    Chainable,
    Graph,
    Node,
    close_graph,
    current_graph,
    open_graph,
    set_order,
)
from pubsubflow.authoring.tasks.options import check_defaults, check_id
from pubsubflow.authoring.tasks.setup_teardown import last_tasks


class TaskGroup(Chainable):
    """A group of tasks under one name; made with `task_group`.

    Attributes:
        full_id: Its id with those of the groups around it.
        members: The tasks made inside, including those of nested groups.
        result: The decorated function's return value.
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
        options = dict(self._options)
        graph = current_graph(f"group {options['group_id']!r}", options.get("dag"))
        options["group_id"] = _free_group_id(graph, options["group_id"])
        with _group(**options) as group:
            group.result = self._function(*args, **kwargs)
        return group if group.result is None else group.result

    def expand(self, **_lists: Any) -> NoReturn:
        """Refuse to map a whole group.

        Raises:
            DefinitionError: Always; it says what to write.
        """
        raise definition_error(
            f"group {self._options['group_id']!r} cannot be mapped as a whole: map its tasks one "
            "by one, each over the result of the one before; several of them over .zip()"
        )

    partial = expand_kwargs = expand


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
    dag: object = None,
) -> Any:
    """Group tasks under one name, by a `with` block or as a decorator.

    `with task_group("extract"):` and `@task_group` both work.

    Args:
        group_id: Name of the group; the function's name when left out.
        prefix_group_id: Whether task ids start with `group_id.`.
        default_args: Task options for the tasks inside.
        dag: Its DAG; the open one when None.

    Raises:
        DefinitionError: The id or an option is invalid.
    """
    if callable(group_id):
        return GroupFunction(group_id, {})
    options: dict[str, Any] = {
        "prefix_group_id": prefix_group_id,
        "default_args": default_args,
        "dag": dag,
    }
    if group_id is not None:
        options["group_id"] = group_id
    return _TaskGroup(options)


def _group(
    group_id: str, *, prefix_group_id: bool = True, default_args: Any = None, dag: object = None
) -> TaskGroup:
    defaults = check_defaults(default_args)
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
