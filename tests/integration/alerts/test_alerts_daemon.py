"""Callbacks and alerts through a real daemon."""

from functools import partial
from pathlib import Path

import pytest

from pubsubflow.cli.daemon_process import child_daemon
from pubsubflow.client import Client
from support.signals import Signal

pytestmark = pytest.mark.anyio
DAGS = Path(__file__).with_name("dags")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("alerts") / "home"


@pytest.fixture(scope="module")
def url(home):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PUBSUBFLOW_CONN_PAGER", "x://ann:hush-hush@elsewhere/")
        patch.setenv("PUBSUBFLOW__ALERTS__RETRIES", "1")
        patch.setenv("PUBSUBFLOW__ALERTS__RETRY_DELAY_SECONDS", "0.1")
        with child_daemon(DAGS, home=home, port=0) as url:
            yield url


@pytest.fixture
async def client(url):
    async with Client(url) as client:
        yield client


async def called(read):
    """Return what `read` returns once all its calls have ended."""

    async def check():
        found = await read()
        ended = found.callbacks and all(each.ended_at for each in found.callbacks)
        return found if ended else None

    # The end of a call is stored, and not announced.
    return await Signal().wait_until(check, seconds=45, poll_seconds=0.1)


async def test_outcomes_of_tasks_and_runs_are_told(client):
    """Once each; what fails is tried again, and changes no outcome; secrets are masked."""
    run_id = await client.trigger("told")
    run = await client.wait(run_id, timeout_seconds=60)
    assert run.state == "failed"
    run = await called(lambda: client.run(run_id))
    calls = [(each.name, each.state, each.tries) for each in run.callbacks]
    assert calls == [("say", "success", 1), ("broken", "failed", 2), ("crashes", "failed", 2)]
    assert "failed tasks: fails" in run.callbacks[0].output
    assert run.callbacks[1].error == "ValueError: cannot tell, try 2"
    assert "signal 9" in run.callbacks[2].error or "SIGKILL" in run.callbacks[2].error
    found = {}
    for name in ("fails", "skips", "works"):
        found[name] = (await called(partial(client.task, run_id, name))).callbacks
    assert [(each.kind, each.name, each.attempt) for each in found["fails"]] == [
        ("on_retry", "say", 1),
        ("on_failure", "say", 2),
        ("on_failure", "reads", 2),
    ]
    assert found["fails"][2].output == "the password is ***"
    assert [each.kind for each in found["skips"]] == ["on_skipped"]
    assert "was skipped: Skip: why" in found["skips"][0].output
    assert [each.kind for each in found["works"]] == ["on_success"]
    alerts = sorted([each.text async for each in client.alerts(kind="callback", subject="told")])
    assert len(alerts) == 2
    assert "callback broken of DAG told (on_failure) has failed: ValueError" in alerts[0]


async def test_a_deadline_that_passes_is_an_alert_until_the_run_ends(client, tmp_path):
    """One run works, the other one waits in the queue; each opening and end is an event, once."""
    hold = tmp_path / "hold"
    hold.touch()
    params = {"hold": str(hold)}
    runs = [await client.trigger("late", params=params) for _ in range(2)]

    async def listed(state, count):
        found = [each async for each in client.alerts(state=state, kind="deadline")]
        return found if len(found) == count else None

    poll = Signal()
    opened = await poll.wait_until(lambda: listed("open", 2), seconds=30, poll_seconds=0.1)
    assert {each.run_id for each in opened} == set(runs)
    assert all("has not ended 0:00:01 after it was made" in each.text for each in opened)
    alert = await called(lambda: client.alert(opened[0].id))
    assert [(each.name, each.state) for each in alert.callbacks] == [("say", "success")]
    assert alert.callbacks[0].output == f"deadline True {alert.text}"
    known = await client.acknowledge_alert(opened[0].id)
    assert (known.state, known.acknowledged_by) == ("acknowledged", "local")
    hold.unlink()
    for run_id in runs:
        await client.wait(run_id, timeout_seconds=30)
    ended = await poll.wait_until(lambda: listed("ended", 2), seconds=30, poll_seconds=0.1)
    assert {each.ending for each in ended} == {"the run has ended"}
    assert ended[0].event_dataset == "pubsubflow://alerts/deadline/late"

    async def heard():
        found = [each async for each in client.runs(dag_id="hears")]
        done = len(found) == 4 and all(each.state == "success" for each in found)
        return found if done else None

    told = await poll.wait_until(heard, seconds=30, poll_seconds=0.1)
    results = [(await client.task(each.run_id, "read")).result for each in told]
    assert sorted((each["run"], each["state"]) for each in results) == sorted(
        (run_id, state) for run_id in runs for state in ("open", "ended")
    )
