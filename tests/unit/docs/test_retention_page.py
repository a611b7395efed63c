"""The page on retention: its settings, its DAGs and its commands are what users can type."""

import re
import tomllib
from datetime import timedelta
from pathlib import Path

import msgspec

from pubsubflow.cli.main import make_app
from pubsubflow.model.spec import RetentionSpec
from pubsubflow.retention import RetentionSettings

PAGE = (Path(__file__).parents[3] / "docs" / "retention.md").read_text()


def block(language: str) -> str:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)[0]


def test_settings_and_their_defaults_are_as_told():
    told = tomllib.loads(block("toml"))["retention"]
    assert told == msgspec.to_builtins(RetentionSettings())


def test_the_dags_have_the_retention_that_they_declare(monkeypatch):
    declared = {}
    monkeypatch.setattr(
        "pubsubflow.authoring.dag.collect_dag", lambda name, dag, _: declared.update({name: dag})
    )
    exec(block("python"), {"__name__": "page"})
    year = timedelta(days=365).total_seconds()
    assert declared["audit"].to_spec("f", "s").retention == RetentionSpec(runs_seconds=year)
    assert declared["every_minute"].to_spec("f", "s").retention == RetentionSpec(
        runs_seconds=2 * 86_400.0, runs_count=500, logs_seconds=6 * 3600.0
    )


def test_every_command_is_one():
    lines = re.findall(r"^\$ pubsubflow (.*)$", PAGE, re.MULTILINE)
    assert lines
    for line in lines:
        make_app().parse_args(line.split(), print_error=False, exit_on_error=False)
