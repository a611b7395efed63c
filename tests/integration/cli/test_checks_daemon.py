"""Checks through a real daemon that is killed once while one runs."""

import os
import signal
from pathlib import Path

import anyio
import pytest

from pubsubflow.cli.daemon_process import child_daemon
from pubsubflow.client import Client
from pubsubflow.embedded.home import read_owner
from support.signals import Signal

pytestmark = pytest.mark.anyio
DAGS = Path(__file__).with_name("checked")


async def until(read, *, seconds=45):
    """Return what `read` returns, once that is true: a client is told of nothing."""
    return await Signal().wait_until(read, seconds=seconds, poll_seconds=0.05)


async def emit(client, name, rows=1, **extra):
    event = {"dataset": "lake://orders", "extra": {"name": name, "rows": rows, **extra}}
    return (await client.emit([event])).ids[0]


async def settled(client, event):
    """Return the results of an event, by check, once none waits."""

    async def read():
        found = {each.check: each async for each in client.check_results(event=event)}
        done = len(found) == 2 and all(each.outcome != "waiting" for each in found.values())
        return found if done else None

    return await until(read)


async def used(client, count):
    """Return what the runs of the subscriber got, in order, once there are so many."""

    async def read():
        runs = [each async for each in client.runs(dag_id="uses")]
        done = len(runs) == count and all(each.state == "success" for each in runs)
        return [each.run_id for each in reversed(runs)] if done else None

    found = await until(read)
    return [(await client.task(run_id, "names")).result for run_id in found]


async def killed(home, hold):
    """Run a daemon until it checks an event, kill it, and return the event."""
    with child_daemon(DAGS, home=home, port=0) as url:
        async with Client(url) as client:
            event = await emit(client, "first", hold=str(hold))

            async def running():
                runs = [each async for each in client.runs(dag_id="check:has_rows")]
                return runs and runs[0].state == "running" and runs

            await until(running)
            assert [each.event_id async for each in client.held_events()] == [event]
        os.kill(read_owner(home).pid, signal.SIGKILL)
    return event


@pytest.fixture(scope="module")
def after_kill(tmp_path_factory, fresh_home):
    """The home and the URL of a daemon whose predecessor was killed, and the event it checked."""
    folder = tmp_path_factory.mktemp("checks")
    home, hold = fresh_home(folder / "home"), folder / "hold"
    hold.touch()
    event = anyio.run(killed, home, hold)
    hold.unlink()
    with child_daemon(DAGS, home=home, port=0) as url:
        yield home, url, event


@pytest.fixture
async def client(after_kill):
    async with Client(after_kill[1]) as client:
        yield client


@pytest.fixture
def psf(after_kill, call):
    return lambda *arguments: call(*arguments, PUBSUBFLOW_HOME=str(after_kill[0]))


async def test_an_event_is_released_once_although_the_daemon_is_killed(client, after_kill):
    found = await settled(client, after_kill[2])
    assert (found["has_rows"].outcome, found["has_rows"].released) == ("passed", True)
    assert await used(client, 1) == [["first"]]
    log = [each async for each in client.events(dataset="lake://orders")]
    assert [(each.event_id, each.held) for each in log] == [(after_kill[2], None)]


async def test_a_held_event_reaches_nobody_until_a_person_says_so(client, psf, tmp_path):
    mend = tmp_path / "mend"
    waiting = await client.trigger("waits")
    empty = await emit(client, "empty", rows=0, mend=str(mend))
    broken = await emit(client, "broken", rows=-1)
    found = await settled(client, empty)
    assert (found["has_rows"].outcome, found["has_rows"].holding) == ("failed", True)
    assert found["has_rows"].metadata == {"try": 1}
    assert found["is_small"].outcome == "passed"
    found = await settled(client, broken)
    assert found["has_rows"].outcome == "error"
    assert "ValueError: -1 rows cannot be" in found["has_rows"].description
    held = {each.event_id: each.held async for each in client.held_events(check="has_rows")}
    assert held[empty] == "held by check has_rows: 0 rows"
    assert "held by check has_rows: 0 rows" in psf("datasets", "events", "--json").out
    fate = await client.event_outcomes(empty)
    assert [(each.dag_id, each.outcome) for each in fate.outcomes] == [
        ("check:has_rows", "failed"),
        ("check:is_small", "passed"),
        ("uses", "held"),
    ]
    reasons = (await client.why_not("uses")).reasons
    assert any(each.kind == "held" and "2 events wait for checks" in each.text for each in reasons)
    (alert,) = [each async for each in client.alerts(state="open", kind="check")]
    assert (alert.subject, alert.dataset) == ("has_rows", "lake://orders")
    assert (await client.run(waiting)).state == "running"
    assert len(await used(client, 1)) == 1
    mend.touch()
    assert psf("checks", "run-again", empty).out == f"{empty} checked again\n"
    assert (await settled(client, empty))["has_rows"].tries == 2
    assert await used(client, 2) == [["first"], ["empty"]]
    assert (await client.wait(waiting, timeout_seconds=30)).state == "success"
    assert (await client.task(waiting, "wait")).result == "empty"
    told = psf("checks", "discard", "--check", "has_rows", "--note", "a test")
    assert told.out == f"{broken} discarded\n"
    assert "discarded by local: a test" in psf("datasets", "events", "--json").out
    assert psf("checks", "held").out == "no event is held\n"
    assert psf("checks", "release", broken).out == "no such event is held\n"
    (ended,) = [each async for each in client.alerts(state="ended", kind="check")]
    assert ended.id == alert.id


async def test_events_of_a_task_are_released_one_by_one_while_a_pause_holds(client, psf):
    before = len(await used(client, 2))
    assert psf("dags", "pause", "check:has_rows").code == 0
    run_id = await client.trigger("makes")
    await client.wait(run_id, timeout_seconds=30)
    held = [each async for each in client.held_events()]
    assert [(each.partition, each.task_id) for each in held] == [("b", "make"), ("a", "make")]
    assert held[0].held == "held by check has_rows: it has not ended yet"
    assert psf("checks", "list", "--json").json[0]["paused"]
    shown = psf("datasets", "show", "lake://orders", "--json").json
    assert [each["dag_id"] for each in shown["subscribers"]] == ["uses"]
    assert shown["checks"] == [
        {"check": "has_rows", "paused": True, "held": 2},
        {"check": "is_small", "paused": False, "held": 0},
    ]
    first = held[1].event_id
    assert psf("checks", "release", first, "--note", "known").out == f"{first} released\n"
    assert (await used(client, before + 1))[-1] == ["a"]
    assert psf("dags", "unpause", "check:has_rows").code == 0
    assert (await used(client, before + 2))[-1] == ["b"]
    found = await settled(client, first)
    assert (found["has_rows"].released_by, found["has_rows"].note) == ("local", "known")
    names = [each["dag_id"] for each in psf("dags", "list", "--json").json]
    assert names == ["makes", "uses", "waits"]
    checks = [each["dag_id"] for each in psf("dags", "list", "--checks", "--json").json]
    assert checks == ["check:has_rows", "check:is_small"]
    assert {each.dag_id async for each in client.runs()} == {"makes", "uses", "waits"}
    refused = psf("dags", "trigger", "check:has_rows")
    assert refused.code == 2
    assert "is a check: check a held event again" in refused.err
