import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pubsubflow_triggers
import pytest

from pubsubflow.plugins import TRIGGER_GROUP, trigger_name, trigger_type

GUIDE = Path(__file__).parents[2] / "docs" / "triggers.md"
OURS = sorted(
    point.name
    for point in entry_points(group=TRIGGER_GROUP)
    if point.value.startswith("pubsubflow_triggers.")
)


@pytest.mark.parametrize("name", OURS)
def test_each_is_registered_exported_and_in_the_guide(name):
    kind = trigger_type(name)
    assert trigger_name(kind) == name
    assert getattr(pubsubflow_triggers, kind.__name__) is kind
    assert kind.__name__ in pubsubflow_triggers.__all__
    assert f"`{name}`" in GUIDE.read_text()


def test_all_names_are_there():
    exported = [getattr(pubsubflow_triggers, name) for name in pubsubflow_triggers.__all__]
    assert sorted(map(trigger_name, exported)) == OURS
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = pubsubflow_triggers.Nothing


def test_a_missing_extra_is_told_on_use_alone(monkeypatch):
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    monkeypatch.delitem(sys.modules, "pubsubflow_triggers.http", raising=False)
    monkeypatch.delitem(sys.modules, "pubsubflow_triggers.http_requests", raising=False)
    assert pubsubflow_triggers.Moment
    with pytest.raises(ImportError, match=r"HttpStatus needs .*'pubsubflow-triggers\[http\]'"):
        _ = pubsubflow_triggers.HttpStatus


def test_import_star_takes_what_is_installed(monkeypatch):
    names = {}
    exec("from pubsubflow_triggers import *", names)
    assert set(names) - {"__builtins__"} == {trigger_type(name).__name__ for name in OURS}
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    for module in ("http", "http_requests"):
        monkeypatch.delitem(sys.modules, f"pubsubflow_triggers.{module}", raising=False)
    some = {}
    exec("from pubsubflow_triggers import *", some)
    assert set(names) - set(some) == {"HttpJson", "HttpLongPoll", "HttpStatus"}


def test_nothing_is_imported_before_it_is_used():
    code = "import sys, pubsubflow_triggers as t; t.Moment; print('aiohttp' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
