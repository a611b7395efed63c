"""Mapping of whole task groups: what a group is mapped over, and its elements inside of it."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from inspect import Parameter, signature
from typing import Any, Literal, NoReturn, Protocol

from pubsubflow.authoring.source_location import definition_error, suggestion

_NO_DEFAULT = object()


class ExpandInput:
    """One mapped argument.

    Attributes:
        name: Keyword of the task; empty for `expand_kwargs`.
        values: The elements, or the reference to the result that holds them.
        counted: Only the number of elements matters: the task finds its own by itself.
    """

    __slots__ = ("counted", "name", "values")

    def __init__(self, name: str, values: Any, *, counted: bool = False) -> None:
        self.name = name
        self.values = values
        self.counted = counted


class JoinedElements:
    """What stands for the elements of several lists or results, of which only the number matters.

    Attributes:
        kind: `zip`, `longest` or `concat`; see `MappedArgument.joined`.
        parts: The lists and results.
    """

    __slots__ = ("kind", "parts")

    def __init__(
        self, kind: Literal["zip", "longest", "concat"], parts: tuple[ExpandInput, ...]
    ) -> None:
        self.kind = kind
        self.parts = parts


class GroupMapping:
    """What the tasks of a group are mapped over.

    Attributes:
        name: Id of the group.
        inputs: Its mapped arguments, as `expand` makes them.
    """

    def __init__(self, name: str, inputs: tuple[ExpandInput, ...]) -> None:
        self.name = name
        self.inputs = inputs


class OpenGroup(Protocol):
    """A task group, as the graph uses it.

    Attributes:
        prefix: The prefix of task ids; empty for none.
        full_id: Its id with those of the groups around it; empty for a block without a name.
        defaults: Checked task options.
        members: The nodes made inside.
        mapping: What it is mapped over, if it is.
    """

    prefix: str
    full_id: str
    defaults: dict[str, Any]
    members: list[Any]
    mapping: GroupMapping | None


class ElementReference:
    """An element that a group is mapped to, known when an instance runs; pass it to tasks.

    `element["key"]` refers to a part of it.

    Attributes:
        mapping: What the group is mapped over.
        name: The argument of the group's function.
        path: Keys into the element.
    """

    __slots__ = ("_default", "mapping", "name", "path")

    def __init__(
        self,
        mapping: GroupMapping,
        name: str,
        path: tuple[Any, ...] = (),
        default: object = _NO_DEFAULT,
    ) -> None:
        self.mapping = mapping
        self.name = name
        self.path = path
        self._default = default

    def __getitem__(self, key: str | int) -> "ElementReference":
        return ElementReference(self.mapping, self.name, (*self.path, key), self._default)

    def __iter__(self) -> NoReturn:
        raise self._unknown("looped over")

    def __bool__(self) -> bool:
        raise self._unknown("tested")

    def __format__(self, spec: str) -> str:
        raise self._unknown("put into a text")

    def __str__(self) -> str:
        raise self._unknown("put into a text")

    def __repr__(self) -> str:
        return f"<element {self.name} of group {self.mapping.name}>"

    @property
    def input(self) -> ExpandInput:
        """The mapped argument that it is an element of, or a value of an element."""
        return next(each for each in self.mapping.inputs if each.name in (self.name, ""))

    def select(self, element: Any) -> Any:
        """Return what this refers to in an element of its argument.

        Raises:
            TypeError: An element of `expand_kwargs` is not a dict.
            KeyError: It lacks the name, or a key of the path.
        """
        value = element
        if not self.input.name:
            if not isinstance(element, dict):
                raise TypeError(f"expand_kwargs() needs dicts, not {element!r}")
            if self.name not in element and self._default is not _NO_DEFAULT:
                return self._default
            value = element[self.name]
        for key in self.path:
            value = value[key]
        return value

    def _unknown(self, verb: str) -> Exception:
        return definition_error(
            f"{self.name!r} of mapped group {self.mapping.name!r} is known only when its tasks "
            f"run, so it cannot be {verb} here: pass it to a task"
        )


def elements_in(value: object) -> Iterator[ElementReference]:
    """Yield the references to elements inside nested lists, tuples and dicts."""
    return (each for each in members(value) if isinstance(each, ElementReference))


def members(value: object) -> Iterator[object]:
    """Yield what is inside nested lists, tuples and dicts, without these."""
    if isinstance(value, dict):
        for item in value.values():
            yield from members(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from members(item)
    else:
        yield value


def element_references(
    mapping: GroupMapping, function: Any, fixed: Collection[str]
) -> dict[str, ElementReference]:
    """Return the arguments of a mapped group's function that elements take the place of."""
    names = [each.name for each in mapping.inputs]
    if names != [""]:
        return {name: ElementReference(mapping, name) for name in names}
    found = {}
    for name, parameter in signature(function).parameters.items():
        if parameter.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD) or name in fixed:
            continue
        default = _NO_DEFAULT if parameter.default is Parameter.empty else parameter.default
        found[name] = ElementReference(mapping, name, (), default)
    return found


def check_group_call(function: Any, given: Mapping[str, Any], names: Iterable[str]) -> None:
    """Check that a group's function can be called.

    Args:
        function: The function.
        given: Its arguments.
        names: Names that the elements have, beside those.

    Raises:
        DefinitionError: It lacks an argument, or one is missing.
    """
    parameters = signature(function).parameters
    known = [
        name
        for name, each in parameters.items()
        if each.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    ]
    takes_all = any(each.kind is Parameter.VAR_KEYWORD for each in parameters.values())
    for name in (*given, *names):
        if name not in known and not takes_all:
            hint = suggestion(name, known) if known else ""
            raise definition_error(f"{function.__name__}() has no argument {name!r}{hint}")
    try:
        signature(function).bind(**given)
    except TypeError as error:
        raise definition_error(f"{function.__name__}() {error}") from None


def refuse_nested(groups: Iterable[Any], what: str, task_id: str | None = None) -> None:
    """Raise DefinitionError if one of the open groups is mapped: mapping is not nested."""
    for group in groups:
        if group.mapping is not None:
            raise definition_error(
                f"{what} is in mapped group {group.full_id!r}, and what is mapped cannot be mapped "
                "once more: map the group over each combination (two arguments of .expand() give "
                "that), or loop inside of a task",
                task_id=task_id,
            )


def check_member(node: Any) -> None:
    """Check the options of a task in a mapped group.

    Raises:
        DefinitionError: One of them has no meaning there.
    """
    options = node.options
    for name in ("depends_on_past", "wait_for_downstream"):
        if getattr(options, name):
            raise definition_error(
                f"{name} does not work in a mapped group ({node.mapping.name!r}): the previous run "
                "may have other elements; set it on a task before the group",
                location=node.location,
                dag_id=node.graph.dag_id,
                task_id=node.task_id,
            )


def check_branches(nodes: Iterable[Any]) -> None:
    """Check that what a branch in a mapped group chooses between is in the group.

    Raises:
        DefinitionError: A task after it is outside: there it could follow for one index and not for
            another.
    """
    for node in nodes:
        for before in node.upstream:
            if before.role == "branch" and before.mapping not in (None, node.mapping):
                raise definition_error(
                    f"the branch is in mapped group {before.mapping.name!r}, and task "
                    f"{node.task_id!r} after it is outside: put it into the group, or a task "
                    "between them",
                    location=before.location,
                    dag_id=before.graph.dag_id,
                    task_id=before.task_id,
                )
