"""The examples of the pages for those who come from elsewhere run."""

import re
from pathlib import Path

import msgspec
import pytest

from pubsubflow.authoring.registry import loading
from pubsubflow.cli.main import _COMMANDS
from pubsubflow.config import Config

AIRFLOW = Path("docs", "from-airflow.md").read_text()


@pytest.mark.parametrize("page", ["from-airflow", "from-dagster", "from-prefect"])
def test_the_examples_of_a_page_run(page):
    text = Path("docs", f"{page}.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    names = {"__name__": page}
    with loading(page) as collected:
        exec(compile("\n".join(blocks), f"{page}.md", "exec"), names)
    assert collected.dags
    tests = [made for name, made in names.items() if name.startswith("test_")]
    assert tests
    for test in tests:
        test()


def rows(heading):
    """Return the right-hand cells of the tables below a heading of the page about Airflow."""
    part = AIRFLOW.split(f"## {heading}\n")[1].split("\n## ")[0]
    return [line.split(" | ")[-1] for line in part.splitlines() if line[:3] == "| `"][1:]


def test_commands_of_the_page_exist():
    known = {f"{group} {name}".strip() for group, (_, found) in _COMMANDS.items() for name in found}
    named = {each for row in rows("Commands") for each in re.findall(r"`([a-z][^`]*)`", row)}
    assert len(named) > 40
    for text in named:
        words = text.split()
        assert words[0] in known or " ".join(words[:2]) in known, text


def test_settings_of_the_page_exist():
    named = {
        each for row in rows("Configuration") for each in re.findall(r"`([a-z]+\.[a-z_]+)`", row)
    }
    assert len(named) > 20
    for text in named:
        section, key = text.split(".")
        (found,) = [each for each in msgspec.structs.fields(Config) if each.name == section]
        assert key in {each.name for each in msgspec.structs.fields(found.type)}, text
