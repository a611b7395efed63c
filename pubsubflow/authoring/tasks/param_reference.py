"""References to params: the arguments of an `@dag` function, whose values each run has."""

from collections.abc import Iterator
from typing import Any, NoReturn

import msgspec

from pubsubflow.authoring.source_location import definition_error


class ParamReference:
    """A param of the DAG, known when a run has started; pass it to tasks.

    In a text it is the template that renders it: `f"load {day}"` is `load {{ params.day }}`.

    Args:
        name: Its name.
        kind: The type that its value is read as; `Any` leaves it as JSON.
        path: Keys into it.
    """

    __slots__ = ("kind", "name", "path")

    def __init__(self, name: str, kind: Any = Any, path: tuple[Any, ...] = ()) -> None:
        self.name = name
        self.kind = kind
        self.path = path

    def __getitem__(self, key: str | int) -> "ParamReference":
        return ParamReference(self.name, self.kind, (*self.path, key))

    def __str__(self) -> str:
        return f"{{{{ params.{self.name}{''.join(f'[{key!r}]' for key in self.path)} }}}}"

    def __format__(self, spec: str) -> str:
        if spec:
            raise self._unknown(f"formatted by {spec!r}")
        return str(self)

    def __repr__(self) -> str:
        return f"<param {self.name}{''.join(f'[{key!r}]' for key in self.path)}>"

    def __bool__(self) -> bool:
        raise self._unknown("tested")

    def __eq__(self, other: object) -> bool:
        # It would be false whatever the run is given, without a word.
        raise self._unknown("compared")

    __hash__ = object.__hash__

    def __iter__(self) -> Iterator[NoReturn]:
        raise self._unknown("looped over")

    def select(self, params: Any) -> Any:
        """Return the value that the params of a run have for this."""
        value = params[self.name]
        if self.kind is not Any and not self.path:
            value = msgspec.convert(value, self.kind, str_keys=True)
        for key in self.path:
            value = value[key]
        return value

    def _unknown(self, verb: str) -> Exception:
        return definition_error(
            f"param {self.name!r} is known only in a run, so it cannot be {verb} here: pass it to "
            "a task, or write it in a template"
        )
