"""Plain command lines: lists without options of their own, for which no parser is imported."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from pubsubflow.cli.shell.parameter import leave_out_parser

PLAIN = "list"
"""The name of the commands that may be called without an argument."""
_PATHS = frozenset({"ca", "home", "config"})
_VALUES = frozenset({"server", "token", "tz"}) | _PATHS

Commands = Mapping[str, tuple[str, Mapping[str, tuple[str, str]]]]


def plain_call(words: Sequence[str], commands: Commands) -> Callable[[], Any] | None:
    """Return what a command line calls; None for one that takes a parser.

    Args:
        words: The command line, without the program's name.
        commands: Group → (help, name → (place, help)).
    """
    group, name = (*words, "", "")[:2]
    if not group or name != PLAIN or group not in commands or PLAIN not in commands[group][1]:
        return None
    options = target_options(words[2:])
    if options is None or not leave_out_parser():
        return None
    module, _, function = commands[group][1][PLAIN][0].partition(":")
    command = getattr(import_module(f"pubsubflow.cli.commands.{module}"), function)
    target = import_module("pubsubflow.cli.target").Target
    return partial(command, target=target(**options))


def target_options(words: Sequence[str]) -> dict[str, Any] | None:
    """Return the fields of `Target` that options name; None if there are others, or errors."""
    found: dict[str, Any] = {}
    rest = iter(words)
    for word in rest:
        option, equals, value = word.partition("=")
        name = option.removeprefix("--")
        if not option.startswith("--") or name in found:
            return None
        if name == "json" and not equals:
            found[name] = True
            continue
        value = value if equals else next(rest, "")
        # What begins with a hyphen may be the next option: the parser says what is missing.
        if name not in _VALUES or not value or value.startswith("-"):
            return None
        found[name] = Path(value) if name in _PATHS else value
    return found
