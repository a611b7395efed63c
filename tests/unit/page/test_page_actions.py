"""Every action of the page says the same as a command, and as a request; both exist.

That each has both, and that requests are those of the API, are types: see test_page_types.py. That
a command does the same as the page is tried in tests/browser/test_acts.py.
"""

import importlib
import inspect
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from cyclopts import Parameter

from pubsubflow.cli.main import _COMMANDS

VIEWS = sorted((Path(__file__).parents[3] / "web" / "src" / "views").rglob("*.tsx"))
TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"')
WORDS = {  # what a view makes a command of in place of a literal → the commands
    "verb.toLowerCase()": {
        "dags": ("pause", "unpause"),
        "backfills": ("pause", "resume"),
        "subscriptions": ("pause", "resume"),
        "dead-letters": ("resend", "discard"),
    },
    "action": {"checks": ("release", "discard", "run-again")},
    'retry ? "retry" : "clear"': {"runs": ("retry", "clear")},
}


def calls(source):
    """Yield what stands in the parentheses of each call of `command`."""
    for found in re.finditer(r"(?<![\w.])command\(", source):
        depth, at = 1, found.end()
        while depth:
            depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(source[at], 0)
            at += 1
        yield source[found.end() : at - 1]


def options(place):
    """Return the options of a command."""
    module, _, name = place.partition(":")
    function = getattr(importlib.import_module(f"pubsubflow.cli.commands.{module}"), name)
    found = set()
    hints = get_type_hints(function, include_extras=True)
    for parameter in inspect.signature(function).parameters:
        own, *extras = get_args(hints[parameter]) or [hints[parameter]]
        if is_dataclass(own):
            found |= {each.name for each in fields(own)}
            more = get_type_hints(own, include_extras=True).values()
            extras += [each for hint in more for each in get_args(hint)]
        found.add(parameter)
        for extra in extras:
            if isinstance(extra, Parameter):
                found |= {each.lstrip("-") for each in (*extra.name, *(extra.alias or ()))}
    return {f"--{each.strip('_').replace('_', '-')}" for each in found}


def commands_of(arguments):
    """Return the commands that a call of `command` may make."""
    if arguments.strip().startswith("...("):
        return re.findall(r'\["([\w-]+)", "([\w-]+)"', arguments)  # one of several
    group, _, rest = arguments.strip().removeprefix("...[").partition(",")
    group, word = group.strip().strip('"'), rest.strip()
    if group in _COMMANDS[""][1]:
        return [("", group)]
    for written, commands in WORDS.items():
        if word.startswith(written):
            return [(group, name) for name in commands[group]]
    return [(group, TEXT.match(word)[1])]


@pytest.mark.parametrize("path", VIEWS, ids=lambda path: path.stem)
def test_every_command_that_a_view_shows_exists(path):
    source = path.read_text()
    known = set()
    for arguments in calls(source):
        if arguments.startswith("...head"):
            continue  # its words stand in the lines above it, which follow below
        own = set()
        for group, name in commands_of(arguments):
            own |= options(_COMMANDS[group][1][name][0])
        for text in TEXT.findall(arguments):
            assert not text.startswith("--") or text in own, (arguments, text)
        known |= own
    for group, name in (("runs", "retry"), ("runs", "clear"), ("runs", "cancel"), ("runs", "mark")):
        known |= options(_COMMANDS[group][1][name][0])
    for flag in TEXT.findall(source):
        assert not re.fullmatch(r"--[a-z-]+", flag) or flag in known, flag
