"""Versions of DAGs through a real daemon and the real command line: from a bad deployment back."""

import json

import anyio
import pytest

from pubsubflow.cli.daemon_process import child_daemon
from pubsubflow.client import Client
from support.command_server import CommandServer
from support.signals import Signal

pytestmark = pytest.mark.anyio
FILE = """
from pubsubflow import Dataset, dag, task


@dag(schedule=Dataset("x://orders"))
def sales():
    @task
    def report():
        {body}

    report()
"""
GOOD, BAD, BETTER = "return 'good'", "raise ValueError('bad')", "return 'better'"


class Sales:
    """A daemon over a folder with one DAG file, and its command line."""

    def __init__(self, client, path, command):
        self.client, self.path, self.command = client, path, command

    def psf(self, *arguments, code=0):
        """Run a command; return what it prints, in JSON decoded."""
        answer = self.command("dags", *arguments)
        assert answer.code == code, answer.err
        return answer.json if "--json" in arguments else answer.out + answer.err

    async def deploy(self, body, newest):
        self.path.write_text(FILE.format(body=body))
        await self.client.reload_dags()
        await self.until(lambda dag: dag.newest_version == newest)

    async def until(self, check):
        async def found():
            dags = (await self.client.dags()).items
            return bool(dags) and check(dags[0])

        await Signal().wait_until(found, poll_seconds=0.05)

    async def outcome(self):
        """Emit an event; return the version and the state of its run."""
        posted = await self.client.emit([{"dataset": "x://orders"}])
        event = posted.ids[0]

        async def made():
            newest = [run async for run in self.client.runs(dag_id="sales", limit=1)]
            return newest[0] if newest and event in newest[0].run_key else None

        run = await Signal().wait_until(made, poll_seconds=0.05)
        run = await self.client.wait(run.run_id, timeout_seconds=30)
        return run.version, run.state


@pytest.fixture
async def sales(tmp_path, fresh_home):
    folder, home = tmp_path / "dags", fresh_home(tmp_path / "home")
    folder.mkdir()
    path = folder / "sales.py"
    path.write_text(FILE.format(body=GOOD))
    with child_daemon(folder, home=home, port=0) as url, CommandServer() as server:

        def command(*arguments):
            return server.call(*arguments, PUBSUBFLOW_HOME=str(home))

        async with Client(url) as client:
            yield Sales(client, path, command)


async def test_a_bad_deployment_is_taken_back_shared_and_cleaned_up(sales):
    await sales.until(lambda dag: dag.version == 1)
    assert await sales.outcome() == (1, "success")
    await sales.deploy(BAD, 2)
    assert await sales.outcome() == (2, "failed")
    assert "take version 1, pinned; its file defines 2" in sales.psf("rollback", "sales")
    assert await sales.outcome() == (1, "success")
    await sales.deploy(BETTER, 3)
    assert await sales.outcome() == (1, "success")
    diff = sales.psf("versions", "sales", "--diff", "2", "3")
    assert "-        raise ValueError('bad')" in diff
    assert "+        return 'better'" in diff
    listed = sales.psf("versions", "sales", "--json")
    assert [(each["number"], each["in_force"], each["runs"]["total"]) for each in listed] == [
        (3, False, 0),
        (2, False, 1),
        (1, True, 3),
    ]
    assert "50 % version 1, 50 % version 3" in sales.psf("promote", "sales", "3", "--share", "50%")
    outcomes = set()
    with anyio.fail_after(60):
        while outcomes != {(1, "success"), (3, "success")}:
            outcomes.add(await sales.outcome())
    shares = sales.psf("show", "sales", "--json")["shares"]
    assert [(each["version"], each["runs"]["success"] > 0) for each in shares] == [
        (1, True),
        (3, True),
    ]
    assert "50 %" in sales.psf("show", "sales")
    assert "take version 3" in sales.psf("promote", "sales", "3")
    assert await sales.outcome() == (3, "success")
    run = [run async for run in sales.client.runs(dag_id="sales")][-1]
    assert (await sales.client.run_graph(run.run_id)).version == 1
    assert "report" in sales.psf("graph", "sales", "--run", run.run_id)
    assert "sales.py defines DAG 'sales'" in sales.psf("delete", "sales", code=1)
    sales.path.unlink()
    await sales.client.reload_dags()
    await sales.until(lambda dag: dag.missing_since is not None)
    planned = sales.psf("delete", "sales", "--dry-run", "--json")
    assert planned["runs"] > 4
    sales.psf("delete", "sales")
    assert "no DAG named 'sales'" in sales.psf("show", "sales", code=2)

    async def removed():
        return not [run async for run in sales.client.runs()]

    await Signal().wait_until(removed, poll_seconds=0.05)
    audited = [json.dumps(each) for each in sales.command("audit", "list", "--json").json]
    assert sum("/rollback" in each or "/promote" in each for each in audited) == 3
