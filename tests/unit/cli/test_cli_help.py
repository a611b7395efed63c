"""Help of the command line: in the lists of commands, of each command, and of its options."""

import importlib
import inspect
import re

import pytest

from house import DIALECT
from pubsubflow.cli.main import _COMMANDS, run

PARAMETER = re.compile(r"^    (\w+): (.+(?:\n {8}.+)*)", re.MULTILINE)
VERBS = {
    *(
        "Acknowledge",
        "Cancel",
        "Check",
        "Clear",
        "Count",
        "Create",
        "Delete",
        "Discard",
        "Edit",
        "Emit",
    ),
    *(
        "Encrypt",
        "Evaluate",
        "Explain",
        "Export",
        "Import",
        "Limit",
        "List",
        "Manage",
        "Migrate",
        "Pause",
    ),
    *(
        "Open",
        "Print",
        "Release",
        "Remove",
        "Resend",
        "Resume",
        "Retry",
        "Revoke",
        "Run",
        "Send",
        "Serve",
        "Set",
        "Show",
        "Start",
    ),
    *("Wait", "Write"),
}
COMMANDS = [
    pytest.param(f"{group} {name}".strip(), place, text, id=f"{group} {name}".strip())
    for group, (_, commands) in _COMMANDS.items()
    for name, (place, text) in commands.items()
]


def check_text(text):
    """Assert that a text is an imperative sentence in plain words."""
    assert text.split()[0].rstrip(",") in VERBS, text
    assert text.endswith("."), text
    assert not DIALECT.search(text), text


@pytest.mark.parametrize("group", _COMMANDS)
def test_help_of_a_group_is_an_imperative_and_lists_its_commands(group, capsys):
    text, commands = _COMMANDS[group]
    if group:
        check_text(text)
    assert run([*group.split(), "--help"]) == 0
    out = capsys.readouterr().out
    for name in commands:
        assert re.search(rf"^\W*{name} ", out, re.MULTILINE)


@pytest.mark.parametrize(("command", "place", "text"), COMMANDS)
def test_help_of_a_command_is_an_imperative_that_says_what_it_does(command, place, text, capsys):
    check_text(text)
    module, _, function = place.partition(":")
    called = getattr(importlib.import_module(f"pubsubflow.cli.commands.{module}"), function)
    summary = inspect.getdoc(called).split("\n\n")[0]
    check_text(" ".join(summary.split()))
    assert summary.split()[0] == text.split()[0]

    assert run([*command.split(), "--help"]) == 0
    out = capsys.readouterr().out
    assert f"Usage: pubsubflow {command}" in out
    assert not DIALECT.search(out), DIALECT.search(out)
    assert "?" not in out


@pytest.mark.parametrize(("_command", "place", "_text"), COMMANDS)
def test_every_parameter_has_a_sentence(_command, place, _text):
    module, _, function = place.partition(":")
    called = getattr(importlib.import_module(f"pubsubflow.cli.commands.{module}"), function)
    documented = dict(
        re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", inspect.getdoc(called), re.MULTILINE)
    )
    assert list(documented) == list(inspect.signature(called).parameters)
    for sentence in documented.values():
        assert sentence[0].isupper(), sentence
        assert sentence.endswith("."), sentence
