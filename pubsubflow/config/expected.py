"""Expected values of settings are described in words, for the error about one that does not fit."""

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct, inspect

from pubsubflow.config.sources import Tree
from pubsubflow.redaction import redact_event


def explain_misfit(tree: Tree, kind: type[Struct], path: str, otherwise: str) -> str:
    """Return an error about a value: its path, the value and what is expected.

    Args:
        tree: The settings.
        kind: Their type.
        path: Dotted path of the value, perhaps with an index: `worker.queues[0]`.
        otherwise: The error's text if nothing is known about the path.
    """
    keys = path.replace("[", ".").replace("]", "").split(".")
    try:
        info, value = _find(inspect.type_info(kind), tree, keys)
    except (LookupError, TypeError, ValueError):
        return f"{path}: {otherwise}"
    shown = redact_event(None, "", {keys[-1]: str(value)})[keys[-1]]
    # Without quotes: whether a number came as one or as a text of the environment does not matter.
    text = shown if shown.isprintable() and shown.strip() else repr(shown)
    return f"{path} is {text}: {describe(info)} is expected"


def _find(info: inspect.Type, value: Any, keys: Sequence[str]) -> tuple[inspect.Type, Any]:
    for key in keys:
        if isinstance(info, inspect.StructType):
            info = next(each.type for each in info.fields if each.encode_name == key)
            value = value[key]
        else:
            info = _element(info)
            # msgspec names an element of a list by dots: `worker.queues[...]`.
            value = value[int(key)] if key.isdecimal() else value
    return info, value


def _element(info: inspect.Type) -> inspect.Type:
    if isinstance(info, inspect.VarTupleType):
        return info.item_type
    raise LookupError(str(info))


def describe(info: inspect.Type) -> str:
    """Return a type and its range in words, such as `an integer from 1 to 10000`."""
    words = next((words for kind, words in _WORDS.items() if isinstance(info, kind)), None)
    return "another value" if words is None else words(info)


def _any_of(info: inspect.UnionType) -> str:
    parts = [each for each in info.types if not isinstance(each, inspect.NoneType)]
    return " or ".join(map(describe, parts))


def _range(info: inspect.IntType | inspect.FloatType) -> str:
    if info.ge is not None and info.le is not None:
        return f" from {info.ge} to {info.le}"
    least = f" above {info.gt}" if info.gt is not None else ""
    least = f" of at least {info.ge}" if info.ge is not None else least
    most = f" and at most {info.le}" if info.le is not None else ""
    return least + most


_WORDS: dict[type[inspect.Type], Callable[[Any], str]] = {
    inspect.IntType: lambda info: "an integer" + _range(info),
    inspect.FloatType: lambda info: "a number" + _range(info),
    inspect.BoolType: lambda _: "true or false",
    inspect.LiteralType: lambda info: "one of " + ", ".join(map(str, info.values)),
    inspect.StrType: lambda info: (
        "a text" + (f" that matches {info.pattern}" if info.pattern else "")
    ),
    inspect.VarTupleType: lambda info: (
        "a list" + (" with an item at least" if info.min_length else "")
    ),
    inspect.UnionType: _any_of,
    inspect.CustomType: lambda _: "a path",
}
