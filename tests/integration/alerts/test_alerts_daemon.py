"""Callbacks and alerts through a real daemon."""

import os
import shutil
import signal
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from pubsubflow.cli.daemon_process import child_daemon
from pubsubflow.client import Client
from pubsubflow.embedded import read_owner
from support.signals import Signal

pytestmark = pytest.mark.anyio
DAGS = Path(__file__).with_name("dags")


class RestartableDaemon:
    """A daemon on a copy of the DAGs, that can be killed and started anew."""

    def __init__(self, folder, home):
        self.home, self.dags = home, folder / "dags"
        shutil.copytree(DAGS, self.dags)
        self._stack = ExitStack()
        self.url = ""

    def start(self):
        self.url = self._stack.enter_context(child_daemon(self.dags, home=self.home, port=0))

    def kill(self):
        os.kill(read_owner(self.home).pid, signal.SIGKILL)
        self._stack.close()

    def stop(self):
        self._stack.close()


@pytest.fixture(scope="module")
def daemon(tmp_path_factory, fresh_home):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PUBSUBFLOW_CONN_PAGER", "x://ann:hush-hush@elsewhere/")
        patch.setenv("PUBSUBFLOW_VAR_GREETING", "hello")
        patch.setenv("PUBSUBFLOW__ALERTS__RETRIES", "1")
        patch.setenv("PUBSUBFLOW__ALERTS__RETRY_DELAY_SECONDS", "0.1")
        patch.setenv("PUBSUBFLOW__ALERTS__AT_ONCE", "2")
        folder = tmp_path_factory.mktemp("alerts")
        daemon = RestartableDaemon(folder, fresh_home(folder / "home"))
        try:
            daemon.start()
            yield daemon
        finally:
            daemon.stop()


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    """The files of runs whose callbacks wait, and the runs."""
    folder = tmp_path_factory.mktemp("held")
    return SimpleNamespace(mark=folder / "mark", hold=folder / "hold", runs=[])


@pytest.fixture
async def client(daemon):
    async with Client(daemon.url) as client:
        yield client


async def called(read):
    """Return what `read` returns once all its calls have ended."""

    async def check():
        found = await read()
        ended = found.callbacks and all(each.ended_at for each in found.callbacks)
        return found if ended else None

    # The end of a call is stored, and not announced.
    return await Signal().wait_until(check, seconds=45, poll_seconds=0.1)


async def test_a_call_whose_daemon_is_killed_before_it_is_made_later(daemon, held):
    """Two calls are under way as the daemon dies, one has not begun: this one is made once."""
    held.hold.touch()
    params = {"mark": str(held.mark), "hold": str(held.hold)}
    async with Client(daemon.url) as client:
        held.runs = [await client.trigger("held", params=params) for _ in range(3)]
        for run_id in held.runs:
            await client.wait(run_id, timeout_seconds=30)
        poll = Signal()
        await poll.wait_until(
            lambda: held.mark.exists() and len(held.mark.read_text().splitlines()) == 2,
            poll_seconds=0.05,
        )
    daemon.kill()
    daemon.start()
    held.hold.unlink()
    async with Client(daemon.url) as client:

        async def made():
            calls = [(await client.run(run_id)).callbacks[0] for run_id in held.runs]
            return [each for each in calls if each.ended_at and each.tries == 1]

        (call,) = await poll.wait_until(made, seconds=30, poll_seconds=0.1)
    assert (call.name, call.state, call.output) == ("slow", "success", "through")


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


async def test_a_dataset_without_events_is_an_alert_until_the_next_one(client, daemon):
    """Declared, it never had one; an event of the past does not count; the file drops it."""
    poll = Signal()

    async def listed(state, count):
        found = [each async for each in client.alerts(state=state, kind="freshness")]
        return found if len(found) == count else None

    (opened,) = await poll.wait_until(lambda: listed("open", 1), poll_seconds=0.1)
    assert (opened.subject, opened.since) == ("x://silent", None)
    assert opened.event_dataset == "pubsubflow://alerts/freshness/x%3A%2F%2Fsilent"
    alert = await called(lambda: client.alert(opened.id))
    assert [each.output for each in alert.callbacks] == [
        f"fresh x://silent True True {opened.text}"
    ]
    (dataset,) = [each async for each in client.datasets() if each.dataset == "x://silent"]
    assert (dataset.fresh_seconds, dataset.stale_alert) == (0.5, opened.id)
    past = datetime.now(UTC) - timedelta(days=1)
    await client.emit([{"dataset": "x://silent", "time": past.isoformat()}])
    await client.emit([{"dataset": "x://silent"}])
    (ended,) = await poll.wait_until(lambda: listed("ended", 1), poll_seconds=0.1)
    (event,) = [each async for each in client.events(dataset="x://silent", limit=1)]
    assert ended.ending == "it has had an event"
    assert ended.ended_at >= event.recorded_at
    (opened,) = await poll.wait_until(lambda: listed("open", 1), poll_seconds=0.1)
    assert opened.since == event.time
    assert opened.opened_at - event.time >= timedelta(seconds=0.5)
    file = daemon.dags / "stale.py"
    file.write_text(file.read_text().replace("fresh=timedelta(seconds=0.5), notify=say", ""))
    (ended, _) = await poll.wait_until(lambda: listed("ended", 2), poll_seconds=0.1)
    assert ended.ending == "no file declares fresh= for the dataset"

    async def heard():
        found = [each async for each in client.runs(dag_id="hears_of_stale")]
        done = len(found) == 4 and all(each.state == "success" for each in found)
        return found if done else None

    runs = await poll.wait_until(heard, seconds=30, poll_seconds=0.1)
    results = [(await client.task(each.run_id, "read")).result for each in runs]
    assert sorted(results) == sorted(
        [number, state] for number in {alert.id, ended.id} for state in ("ended", "open")
    )


async def test_a_call_that_was_under_way_as_its_daemon_was_killed_is_made_again(client, held):
    """Its claim ends by itself, twelve seconds after it was last renewed."""

    async def made():
        runs = [await client.run(run_id) for run_id in held.runs]
        calls = [each.callbacks[0] for each in runs]
        return calls if all(each.ended_at for each in calls) else None

    calls = await Signal().wait_until(made, seconds=30, poll_seconds=0.2)
    assert {each.state for each in calls} == {"success"}
    assert sorted(each.tries for each in calls) == [1, 2, 2]
    assert held.mark.read_text() == "begun\n" * 5
