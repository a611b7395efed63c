"""Actions on many tasks prompt on a terminal, in a command that runs no event loop."""

import sys
from contextlib import asynccontextmanager

import msgspec
import pytest

from pubsubflow.cli.commands.changes.bulk import Bulk
from pubsubflow.cli.commands.changes.task_bulk import act_on_tasks
from pubsubflow.cli.task_choice import EVERY_TASK
from pubsubflow.errors import ConfigError
from pubsubflow.model.api.bulk import BulkTasks


class Target:
    """A daemon with nothing to do."""

    json = False

    @asynccontextmanager
    async def client(self):
        yield None


def finished(coroutine):
    """Run a coroutine without an event loop, as commands do; return its result."""
    with pytest.raises(StopIteration) as stop:
        coroutine.send(None)
    return stop.value.value


@pytest.fixture
def bulk(tmp_path, monkeypatch):
    plan = tmp_path / "plan.json"
    nothing = BulkTasks(action="clear", dry_run=True, counts={}, runs=[])
    plan.write_bytes(msgspec.json.encode(nothing))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    return Bulk(plan=plan)


def test_a_yes_goes_on(bulk, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda _: "y")
    assert finished(act_on_tasks("clear", EVERY_TASK, bulk, Target())) == 0


def test_anything_else_changes_nothing(bulk, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda _: "")
    with pytest.raises(ConfigError, match="nothing was changed"):
        act_on_tasks("clear", EVERY_TASK, bulk, Target()).send(None)
