"""Task groups: a prefix for task ids, shared defaults, and one name to order them by."""

import functools
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from pubsubflow.authoring.graph import Chainable, Graph, Node, current
from pubsubflow.authoring.options import check_defaults, check_id
from pubsubflow.authoring.source_location import mistake


class TaskGroup(Chainable):
    """Tasks that belong together; made with `task_group`.

    Attributes:
        members: The tasks made inside, also in groups within.
        result: What the decorated function returned.
    """

    def __init__(self, group_id: str, *, prefix: bool, defaults: dict[str, Any]) -> None:
        self.group_id = check_id(group_id, "group_id")
        self.prefix = group_id if prefix else ""
        self.defaults = defaults
        self.members: list[Node] = []
        self.result: Any = None
        self._graph: Graph | None = None

    def __enter__(self) -> Self:
        if self._graph is not None:
            raise mistake(f"group {self.group_id!r} is used twice; make one for each `with`")
        self._graph = current(f"group {self.group_id!r}")
        self._graph.groups.append(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._graph is not None:
            self._graph.groups.pop()

    def heads(self) -> list[Node]:
        """Return the members that wait for no other member."""
        members = set(self.members)
        return [node for node in self.members if not members & node.upstream.keys()]

    def tails(self) -> list[Node]:
        """Return the members that no other member waits for."""
        before = {node for member in self.members for node in member.upstream}
        return [node for node in self.members if node not in before]


class GroupFunction:
    """A function declared with `@task_group`; each call adds one group."""

    def __init__(self, function: Callable[..., Any], options: Mapping[str, Any]) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._options = dict(options)
        self._options.setdefault("group_id", function.__name__)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Add a group with the tasks that the function makes; return what it returns, or it."""
        options = dict(self._options)
        graph = current(f"group {options['group_id']!r}")
        options["group_id"] = _free_group_id(graph, options["group_id"])
        with _group(**options) as group:
            group.result = self._function(*args, **kwargs)
        return group if group.result is None else group.result


class _TaskGroup(TaskGroup):
    """A group that is also a decorator: `@task_group(group_id="…")`."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._given = dict(options)
        given = {"group_id": "group"} | self._given
        inner = _group(**given)
        super().__init__(inner.group_id, prefix=bool(inner.prefix), defaults=inner.defaults)

    def __enter__(self) -> Self:
        if "group_id" not in self._given:
            raise mistake("a task_group in a `with` needs an id: task_group('extract')")
        return super().__enter__()

    def __call__(self, function: Callable[..., Any]) -> GroupFunction:
        """Declare a function as a group."""
        return GroupFunction(function, self._given)


def task_group(
    group_id: str | Callable[..., Any] | None = None,
    *,
    prefix_group_id: bool = True,
    default_args: Mapping[str, Any] | None = None,
) -> Any:
    """Keep tasks together under one name, for a `with` or above a function.

    `with task_group("extract"):` and `@task_group` both work.

    Args:
        group_id: Name of the group; the function's name when left out.
        prefix_group_id: Whether task ids start with `group_id.`.
        default_args: Task options for the tasks inside.

    Raises:
        DefinitionError: The id or an option is bad.
    """
    if callable(group_id):
        return GroupFunction(group_id, {})
    options: dict[str, Any] = {"prefix_group_id": prefix_group_id, "default_args": default_args}
    if group_id is not None:
        options["group_id"] = group_id
    return _TaskGroup(options)


def _group(group_id: str, *, prefix_group_id: bool = True, default_args: Any = None) -> TaskGroup:
    return TaskGroup(group_id, prefix=prefix_group_id, defaults=check_defaults(default_args))


def _free_group_id(graph: Graph, group_id: str) -> str:
    """Return the id, numbered when tasks with that prefix exist."""
    found, count = group_id, 0
    while any(name.startswith(graph.full_id(found) + ".") for name in graph.nodes):
        count += 1
        found = f"{group_id}__{count}"
    return found
