"""The catalogue lists plugins and why they cannot be used; the daemon's process imports none."""

import sys

import pytest

from pubsubflow.child_calls.catalogue import PluginCatalogue
from pubsubflow.child_calls.connection_trial import try_connection
from pubsubflow.errors import NotFound
from pubsubflow.model.api.connection_types import ConnectionType
from pubsubflow.model.connections import make_connection

pytestmark = pytest.mark.anyio

MODULE = """
import os, time, sys
from pubsubflow import ConnectionType, Operator

class Greet(Operator):
    def execute(self, ctx): return "hello"

TYPE = ConnectionType(name="crm", check="acme_mixed:check")
MISNAMED = ConnectionType(name="other")

async def check(connection):
    print("printed by a plugin")
    if connection.extra.get("hang"):
        time.sleep(60)
    if connection.extra.get("exit"):
        os._exit(3)
    if "password" in connection.secrets:
        raise ValueError("refused with " + connection.secrets["password"])
    return "fine, whatever " + str(os.environ.get("PUBSUBFLOW__NATS__TOKEN"))
"""
POINTS = """
[pubsubflow.operators]
Greet = acme_mixed:Greet
Quits = acme_quits:Quits
NotOne = acme_mixed:check
[pubsubflow.connection_types]
crm = acme_mixed:TYPE
misnamed = acme_mixed:MISNAMED
[pubsubflow.notifiers]
hangs = acme_hangs:notify
broken = acme_broken:notify
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A distribution whose plugins are good, broken, hanging and deadly."""
    (tmp_path / "acme_mixed.py").write_text(MODULE)
    (tmp_path / "acme_quits.py").write_text("import os; os._exit(7)")
    (tmp_path / "acme_hangs.py").write_text("import time; time.sleep(60)")
    (tmp_path / "acme_broken.py").write_text("raise RuntimeError('no\\nsuch thing')")
    info = tmp_path / "acme-1.2.dist-info"
    info.mkdir()
    (info / "entry_points.txt").write_text(POINTS)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.2\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PUBSUBFLOW__NATS__TOKEN", "s3cr3t")


async def test_each_plugin_is_imported_apart_from_the_daemon(installed):
    catalogue = PluginCatalogue(seconds=1)
    found = {each.name: each for each in await catalogue.plugins() if each.distribution == "acme"}
    errors = {name: each.error for name, each in found.items()}
    assert errors == {
        "Greet": None,
        "Quits": "its import ended the process: exit code 7",
        "NotOne": "acme_mixed:check is not a subclass of pubsubflow.Operator",
        "crm": None,
        "misnamed": "acme_mixed:MISNAMED is named 'other': name its entry point so, too",
        "hangs": "its import took longer than 1 s",
        "broken": "RuntimeError: no such thing",
    }
    assert (found["crm"].kind, found["crm"].version) == ("connection-type", "1.2")
    assert not sys.modules.keys() & {"acme_mixed", "acme_quits", "acme_hangs", "acme_broken"}
    names = [each.name for each in await catalogue.types()]
    assert "crm" in names
    assert "other" not in names
    assert names == sorted(names)
    with pytest.raises(NotFound):
        await catalogue.type("misnamed")
    await checks_run_apart_and_show_no_secret(await catalogue.type("crm"))


async def checks_run_apart_and_show_no_secret(crm):
    async def outcome(seconds=30.0, **more):
        done = await try_connection(make_connection("x", kind="crm", **more), crm, seconds)
        return done.ok, done.outcome

    crm = ConnectionType(name="crm", check=crm.check, open=True)
    assert await outcome() == (True, "fine, whatever None")
    assert await outcome(secrets={"password": "hush-hush"}) == (
        False,
        "ValueError: refused with ***",
    )
    assert await outcome(extra={"exit": True}) == (
        False,
        "the check ended its process: exit code 3",
    )
    assert await outcome(0.5, extra={"hang": True}) == (False, "no answer within 0.5 s")
