"""Map expressions: what a task is mapped over, made of lists, results and functions of elements.

An expression that is more than a list or a whole result is computed by a task of its own, in a
process of user code, before the mapped task: managers count elements, and run no functions.
"""

from collections.abc import Callable, Iterable, Mapping
from itertools import chain, zip_longest
from typing import Any, NoReturn

from pubsubflow.authoring.source_location import definition_error

_NO_FILL = object()


class Mappable:
    """What a task can be mapped over: a result, or an expression of results and lists."""

    __slots__ = ()

    def map(self, function: Callable[[Any], Any]) -> "MapExpression":
        """Map over what a function returns for each element.

        Args:
            function: Runs in a worker's process, once an element.
        """
        if not callable(function):
            raise definition_error(f".map() takes a function, not {function!r}")
        return MapExpression("map", (_tree(self), function))

    def zip(self, *others: Any, fillvalue: Any = _NO_FILL) -> "MapExpression":
        """Map over tuples of elements at the same place.

        Args:
            others: Further lists, dicts, results or expressions.
            fillvalue: In place of the elements of those that are shorter; the shortest one is the
                end when left out.
        """
        trees = tuple(map(_tree, (self, *others)))
        return MapExpression("zip", (*trees, fillvalue))

    def concat(self, *others: Any) -> "MapExpression":
        """Map over the elements of this, and then those of others."""
        return MapExpression("concat", tuple(map(_tree, (self, *others))))


class MapExpression(Mappable):
    """An expression that `expand` and `expand_kwargs` take.

    Attributes:
        tree: It in tuples: the operation, then its operands.
    """

    __slots__ = ("tree",)

    def __init__(self, operation: str, operands: tuple[Any, ...]) -> None:
        self.tree = (operation, *operands)

    def __iter__(self) -> NoReturn:
        raise definition_error(
            "what a map expression holds is known only when it has run: pass it to .expand()"
        )

    def __repr__(self) -> str:
        return f"<map expression {self.tree[0]}>"


def expression_of(value: Any) -> tuple[Any, ...]:
    """Return the tree that computes the elements of a list, dict, result or expression."""
    return _tree(value)


def _tree(value: Any) -> tuple[Any, ...]:
    if isinstance(value, MapExpression):
        return value.tree
    if isinstance(value, str | bytes) or not isinstance(value, Mappable | list | tuple | dict):
        raise definition_error(
            f"a task is mapped over lists, dicts and results, not over {value!r}"
        )
    return ("elements", value)


def compute_elements(tree: tuple[Any, ...]) -> list[Any]:
    """Return the elements of an expression whose references are replaced by results.

    Raises:
        TypeError: A result is neither a list nor a dict.
    """
    operation, *operands = tree
    if operation == "map":
        source, function = operands
        return [function(each) for each in compute_elements(source)]
    if operation == "zip":
        *sources, fill = operands
        lists = [compute_elements(each) for each in sources]
        rows: Iterable[Any] = (
            zip(*lists, strict=False) if fill is _NO_FILL else zip_longest(*lists, fillvalue=fill)
        )
        return list(rows)
    if operation == "concat":
        return list(chain.from_iterable(map(compute_elements, operands)))
    (value,) = operands
    if isinstance(value, Mapping):
        return list(value.items())
    if not isinstance(value, list | tuple):
        raise TypeError(f"it is mapped over something that is not a list or dict: {value!r:.100}")
    return list(value)
