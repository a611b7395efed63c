"""Plain command lines: simple options of lists and of a daemon's start, read without a parser."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from pubsubflow.cli.shell.parameter import leave_out_parser

PLAIN = "list"
"""The name of the commands that may be called without an argument."""
UP = "up"
_TARGET: Mapping[str, type] = {
    **dict.fromkeys(("server", "token", "tz"), str),
    **dict.fromkeys(("ca", "home", "config"), Path),
    "json": bool,
}
_UP: Mapping[str, type] = {
    **dict.fromkeys(("manifest", "home", "config"), Path),
    **dict.fromkeys(("port", "ready_fd", "parent"), int),
    "host": str,
}

Commands = Mapping[str, tuple[str, Mapping[str, tuple[str, str]]]]


def plain_call(words: Sequence[str], commands: Commands) -> Callable[[], Any] | None:
    """Return what a command line calls; None for one that takes a parser.

    Args:
        words: The command line, without the program's name.
        commands: Group → (help, name → (place, help)).
    """
    group, name = (*words, "", "")[:2]
    if group == UP:
        return _plain_up(words[1:], commands[""][1][UP][0])
    if not group or name != PLAIN or group not in commands or PLAIN not in commands[group][1]:
        return None
    options = read_options(words[2:], _TARGET)
    if options is None or not leave_out_parser():
        return None
    command = _command(commands[group][1][PLAIN][0])
    target = import_module("pubsubflow.cli.target").Target
    return partial(command, target=target(**options))


def _plain_up(words: Sequence[str], place: str) -> Callable[[], Any] | None:
    folder = [Path(word) for word in words[:1] if word and not word.startswith("-")]
    options = read_options(words[len(folder) :], _UP)
    if options is None or not leave_out_parser():
        return None
    return partial(_command(place), *folder, **options)


def _command(place: str) -> Callable[..., Any]:
    module, _, function = place.partition(":")
    found: Callable[..., Any] = getattr(
        import_module(f"pubsubflow.cli.commands.{module}"), function
    )
    return found


def read_options(words: Sequence[str], kinds: Mapping[str, type]) -> dict[str, Any] | None:
    """Return the values of options by parameter; None if there are others, or errors.

    Args:
        words: Options alone.
        kinds: Parameter → type of its value; a `bool` takes none.
    """
    found: dict[str, Any] = {}
    rest = iter(words)
    for word in rest:
        option, equals, value = word.partition("=")
        name = option.removeprefix("--").replace("-", "_")
        kind = kinds.get(name)
        if not option.startswith("--") or "_" in option or name in found or kind is None:
            return None
        if kind is bool:
            found[name] = True
            value = "" if not equals else "-"
        else:
            value = value if equals else next(rest, "")
        # What begins with a hyphen may be the next option: the parser says what is missing.
        wrong = value.startswith("-") or (not value and kind is not bool)
        if wrong or (kind is int and not (value.isascii() and value.isdecimal())):
            return None
        if kind is not bool:
            found[name] = kind(value)
    return found
