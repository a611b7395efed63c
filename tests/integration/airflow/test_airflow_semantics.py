"""Through a daemon: what waits, is watched, late, answered, failing fast, reset or partitioned."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pubsubflow.cli.daemon_process import child_daemon
from pubsubflow.client import Client
from support.airflow import SECONDS, airflow_python, give_time
from support.signals import Signal

pytestmark = pytest.mark.anyio
DAGS = Path(__file__).with_name("semantics") / "dags"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("semantics")


@pytest.fixture(scope="module")
def url(folder, fresh_home):
    shutil.copytree(DAGS, folder / "dags")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PUBSUBFLOW__BUNDLES__TEAM__KIND", "airflow")
        patch.setenv("PUBSUBFLOW__BUNDLES__TEAM__PYTHON", airflow_python())
        patch.setenv("PUBSUBFLOW__BUNDLES__TEAM__ENV__SEMANTICS", str(folder))
        give_time(patch)
        with child_daemon(folder / "dags", home=fresh_home(folder / "home"), port=0) as started:
            yield started


@pytest.fixture
async def client(url):
    async with Client(url) as client:

        async def loaded():
            page = await client.dags()
            assert not page.import_errors, page.import_errors[0].error
            return (
                page
                if {"semantics.py", "partitions.py"} <= {each.file for each in page.items}
                else None
            )

        page = await Signal().wait_until(loaded, seconds=SECONDS, poll_seconds=0.2)
        client.known = {each.dag_id for each in page.items}
        yield client


async def ended(client, dag_id, **more):
    run_id = await client.trigger(dag_id, **more)
    run = await client.wait(run_id, timeout_seconds=SECONDS)
    return run, await states(client, run_id)


async def states(client, run_id):
    return {each.task_id: each.state async for each in client.tasks(run_id)}


async def result(client, run, task_id):
    return (await client.task(run.run_id, task_id)).result


async def runs_of(client, dag_id, number):
    """Wait until so many runs of a DAG have ended, and return them."""

    async def there():
        found = [run async for run in client.runs(dag_id=dag_id)]
        return found if sum(run.ended_at is not None for run in found) >= number else None

    return await Signal().wait_until(there, seconds=SECONDS, poll_seconds=0.2)


async def test_each_event_that_a_watcher_sees_is_a_run(client, folder):
    (folder / "in").write_text("4\n5\n")
    runs = await runs_of(client, "on_watched", 2)
    found = [await result(client, run, "numbers") for run in runs]
    seen = sorted(each["payload"]["n"] for events in found for each in events)
    assert seen == [4, 5]
    assert all(each["from_trigger"] for events in found for each in events)


async def test_no_code_runs_before_the_trigger_of_start_from_trigger(client):
    run, found = await ended(client, "from_trigger")
    assert found == {"waits": "success"}
    assert await result(client, run, "waits") == [7, 1]


async def test_a_retry_after_a_deferral_begins_with_execute(client):
    run, found = await ended(client, "fails_after_wait")
    assert found == {"again": "success"}
    assert await result(client, run, "again") == 2


async def test_the_callback_of_a_deadline_is_called_once(client, folder):
    run_id = await client.trigger("late")

    async def called():
        found = (await client.run(run_id)).callbacks
        return found[0] if found and found[0].state in ("success", "failed") else None

    call = await Signal().wait_until(called, seconds=SECONDS, poll_seconds=0.2)
    assert (call.state, call.kind) == ("success", "deadline")
    assert "missed the deadline late" in call.output
    (folder / "go").touch()
    run = await client.wait(run_id, timeout_seconds=SECONDS)
    assert (run.state, len((await client.run(run_id)).callbacks)) == ("success", 1)


async def test_people_answer_by_approvals(client):
    run_id = await client.trigger("people")

    async def asked(title):
        async def there():
            found = [each async for each in client.approvals()]
            return next((each for each in found if each.title == title), None)

        return await Signal().wait_until(there, seconds=SECONDS, poll_seconds=0.2)

    first = await asked("Deploy the rows?")
    await client.answer_approval(first.id, "Approve")
    second = await asked("How many rows?")
    await client.answer_approval(second.id, "OK", values={"rows": 7})
    run = await client.wait(run_id, timeout_seconds=SECONDS)
    assert run.state == "success"
    assert await result(client, run, "told") == [["OK"], {"rows": 7}]


async def test_a_failure_stops_what_runs_and_skips_the_rest(client):
    run, found = await ended(client, "fast")
    assert found == {
        "make": "success",
        "slow": "failed",
        "bad": "failed",
        "after": "skipped",
        "drop": "success",
    }
    stopped = await client.task(run.run_id, "slow")
    assert (stopped.error.type, run.state) == ("FailFast", "success")


async def test_tasks_wait_for_the_date_of_their_run(client):
    date = datetime.now(UTC) + timedelta(seconds=5)
    run, found = await ended(client, "at_its_date", logical_time=date)
    assert found == {"moment": "success", "end": "success"}
    assert datetime.fromisoformat(await result(client, run, "moment")) >= date
    attempts = (await client.task(run.run_id, "moment")).attempt
    assert attempts == 2


async def test_a_run_that_exists_is_reset_and_one_with_a_date_is_found(client, folder):
    """And sensors of its tasks and runs see it; a run that is to start later is refused."""
    run, found = await ended(client, "resets")
    later = found.pop("later", None)
    assert set(found.values()) == {"success"}
    assert (folder / "counted").read_text() == "xxxx"
    runs = await runs_of(client, "counted", 2)
    assert len(runs) == 2
    first = next(run for run in runs if run.logical_time is None or run.logical_time.year > 2020)
    assert await result(client, first, "count") == {"n": 1}
    if later is not None:
        refused = await client.task(run.run_id, "later")
        message = refused.error.message
        assert (later, "run_after" in message, "logical_date" in message) == ("failed", True, True)
    _, found = await ended(client, "external")
    assert found == {"run": "success", "task": "success"}


async def test_keys_that_a_task_adds_are_partitions(client):
    if "at_runtime" not in client.known:
        pytest.skip("this release has no PartitionedAtRuntime")
    await ended(client, "at_runtime")
    runs = await runs_of(client, "per_day", 2)
    assert sorted(run.partition for run in runs) == ["eu|2026-03-04", "us|2026-03-04"]
    keys = {await result(client, run, "key_of") for run in runs}
    assert keys == {run.partition for run in runs}


async def test_ticks_have_partitions_which_roll_up(client):
    runs = await runs_of(client, "by_tick", 7)
    keys = sorted([await result(client, run, "key_of") for run in runs])
    assert (keys[0], keys[-1], len(keys)) == ("2026-03-01T00:00:00", "2026-03-07T00:00:00", 7)
    events = {each.partition async for each in client.events(dataset="s3://parts/daily")}
    assert events == set(keys)
    # Airflow 3.2 has no windows: there each day makes a run of its month.
    number = 2 if "at_runtime" in client.known else 7
    months = await runs_of(client, "per_month", number)
    assert [run.partition for run in months] == ["2026-03"] * number
    assert {await result(client, run, "key_of") for run in months} == {"2026-03"}
