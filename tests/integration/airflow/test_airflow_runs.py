"""Airflow's files run through a real daemon, in the interpreter that has Airflow."""

import shutil
import subprocess
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pubsubflow.cli.daemon_process import child_daemon
from pubsubflow.client import Client
from support.airflow import SECONDS, airflow_python, give_time
from support.signals import Signal

pytestmark = pytest.mark.anyio
DAGS = Path(__file__).with_name("dags")
PACKED = """
from airflow.sdk import dag, task
import helper

@dag(dag_id="packed", tags=[helper.thing.VERSION])
def flow():
    @task
    def known():
        return helper.thing.VERSION

    known()

flow()
"""
REUSED = """
import os
import threading
import time
from datetime import timedelta
from airflow.sdk import dag, task

kept = []

@dag(schedule=None)
def reused():
    @task(max_active_tis_per_dag=1)
    def untidy(number):
        found = [os.getpid(), os.environ.get("LEFT"), os.getcwd() == "/", len(kept)]
        os.environ["LEFT"] = "behind"
        os.chdir("/")
        kept.append(number)
        return found

    @task
    def thread():
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        return os.getpid()

    @task(execution_timeout=timedelta(milliseconds=100))
    def late():
        print("process", os.getpid())
        time.sleep(60)

    @task
    def crashes():
        os._exit(3)

    @task(trigger_rule="all_done", max_active_tis_per_dag=1)
    def after(number):
        return os.getpid()

    spoil = [thread(), late(), crashes()]
    untidy.expand(number=[1, 2, 3, 4, 5]) >> spoil >> after.expand(number=[1, 2, 3])

reused()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("airflow")


@pytest.fixture(scope="module")
def overlay(folder):
    """An interpreter that finds Airflow elsewhere, and has a folder of distributions of its own."""
    subprocess.run([airflow_python(), "-m", "venv", "--without-pip", folder / "env"], check=True)
    python = folder / "env" / "bin" / "python"
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    where = [
        subprocess.run([each, "-c", code], check=True, capture_output=True, text=True).stdout
        for each in (airflow_python(), python)
    ]
    packages = Path(where[1].strip())
    (packages / "airflow.pth").write_text(where[0])
    install(packages, "v1")
    return python, packages


def install(packages, version):
    """Do what pip does."""
    (packages / "thing.py").write_text(f"VERSION = {version!r}\n")
    shutil.rmtree(packages / "__pycache__", ignore_errors=True)
    for before in packages.glob("thing-*.dist-info"):
        shutil.rmtree(before)
    place = packages / f"thing-{version[1:]}.dist-info"
    place.mkdir()
    (place / "METADATA").write_text(f"Name: thing\nVersion: {version[1:]}\n")


@pytest.fixture(scope="module")
def elsewhere(folder):
    """A folder outside of the DAGs folder: an archive, and a DAG whose id is taken."""
    place = folder / "elsewhere"
    place.mkdir()
    with zipfile.ZipFile(place / "packed.zip", "w") as archive:
        archive.writestr("packed_dags.py", PACKED)
        archive.writestr("helper.py", "import thing\n")
    (place / "twice.py").write_text("from airflow.sdk import DAG\ndag = DAG('classic')\n")
    (place / "reused.py").write_text(REUSED)
    return place


@pytest.fixture(scope="module")
def url(folder, fresh_home, overlay, elsewhere):
    shutil.copytree(DAGS, folder / "dags")
    (folder / "dags" / "native.py").write_text(
        "from pubsubflow import Cron, DAG, task\n\n@task\ndef airflow():\n    pass\n"
    )
    (folder / "dags" / ".airflowignore").write_text("native.py\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PUBSUBFLOW__BUNDLES__TEAM__KIND", "airflow")
        patch.setenv("PUBSUBFLOW__BUNDLES__TEAM__PYTHON", airflow_python())
        patch.setenv("PUBSUBFLOW__BUNDLES__OTHER__KIND", "airflow")
        patch.setenv("PUBSUBFLOW__BUNDLES__OTHER__PATH", str(elsewhere))
        patch.setenv("PUBSUBFLOW__BUNDLES__OTHER__PYTHON", str(overlay[0]))
        patch.setenv("PUBSUBFLOW__BUNDLES__OTHER__ISOLATION", "reuse")
        patch.setenv("PUBSUBFLOW_VAR_REGION", "eu")
        patch.setenv("PUBSUBFLOW_VAR_REACH", '{"rows": 3}')
        patch.setenv("PUBSUBFLOW_CONN_SALES", "postgres://ann:hush-hush@elsewhere/sales")
        patch.setenv("LOOKS", str(folder / "looks"))
        patch.setenv("KILLED", str(folder / "killed"))
        patch.setenv("AIRFLOW__CORE__UNIT_TEST_MODE", "False")
        give_time(patch)
        with child_daemon(folder / "dags", home=fresh_home(folder / "home"), port=0) as started:
            yield started


@pytest.fixture
async def client(url):
    async with Client(url) as client:

        async def loaded():
            page = await client.dags()
            return page if files(page) and len(page.import_errors) == 2 else None

        await Signal().wait_until(loaded, seconds=SECONDS, poll_seconds=0.2)
        yield client


def files(page):
    """Return whether all files that have DAGs are loaded."""
    theirs = {path.name for path in DAGS.glob("*.py")} - {"broken.py"}
    theirs |= {"other/packed.zip", "other/reused.py"}
    return {dag.file for dag in page.items} == theirs


async def ended(client, dag_id, **more):
    """Trigger a DAG, and return how its tasks have ended."""
    run_id = await client.trigger(dag_id, **more)
    run = await client.wait(run_id, timeout_seconds=SECONDS)
    found = await states(client, run_id)
    assert run.ended_at is not None, found
    return run, found


async def once(client, dag_id):
    """Trigger a DAG unless a test has: what it emits is there once, in any order of tests."""
    async for run in client.runs(dag_id=dag_id):
        return run, await states(client, run.run_id)
    return await ended(client, dag_id)


async def states(client, run_id):
    return {
        each.task_id if each.map_index is None else f"{each.task_id}.{each.map_index}": each.state
        async for each in client.tasks(run_id)
    }


async def result(client, run, task_id):
    return (await client.task(run.run_id, task_id)).result


async def test_a_file_that_cannot_be_imported_is_named(client):
    errors = {error.file: error.error for error in (await client.dags()).import_errors}
    assert errors.keys() == {"other/twice.py", "broken.py"}
    assert "No module named 'airflow.providers.nowhere'" in errors["broken.py"]


async def test_a_folder_elsewhere_an_archive_and_what_is_installed_meanwhile(client, overlay):
    page = await client.dags()
    errors = {error.file: error.error for error in page.import_errors}
    assert "'classic' is defined by " in errors["other/twice.py"]
    (packed,) = [each for each in page.items if each.dag_id == "packed"]
    assert (packed.file, list(packed.tags)) == ("other/packed.zip", ["v1"])
    run, found = await ended(client, "packed")
    assert (found, await result(client, run, "known")) == ({"known": "success"}, "v1")
    install(overlay[1], "v2")

    async def loaded_anew():
        (packed,) = [each for each in (await client.dags()).items if each.dag_id == "packed"]
        return list(packed.tags) == ["v2"]

    await Signal().wait_until(loaded_anew, seconds=SECONDS, poll_seconds=0.2)
    run, found = await ended(client, "packed")
    assert (found, await result(client, run, "known")) == ({"known": "success"}, "v2")


async def test_processes_that_are_reused_are_tidied_or_left(client):
    """What a task sets for its process is undone; a module's values stay; threads end its use."""
    run, found = await ended(client, "reused")
    failed = {name for name, state in found.items() if state != "success"}
    assert failed == {"late", "crashes"}
    seen = [await result(client, run, f"untidy.{index}") for index in range(5)]
    assert {(left, away) for _, left, away, _ in seen} == {(None, False)}
    processes = [each[0] for each in seen]
    assert len(set(processes)) < len(processes)
    assert max(each[3] for each in seen) >= 1
    late = [each.message async for each in client.logs(run.run_id, "late")]
    assert any("stopped by its timeout" in line for line in late)
    crash = await client.task(run.run_id, "crashes")
    assert crash.error.message == "the attempt's process ended with exit code 3"
    spoilt = {await result(client, run, "thread")}
    spoilt |= {int(line.split()[1]) for line in late if line.startswith("process ")}
    later = {await result(client, run, f"after.{index}") for index in range(3)}
    assert not later & spoilt


async def test_operators_branches_and_templates(client):
    run, found = await once(client, "classic")
    assert found == {
        "greet": "success",
        "bash": "success",
        "branch": "success",
        "left": "success",
        "right": "skipped",
        "join": "success",
    }
    assert await result(client, run, "greet") == {"n": 3}
    assert await result(client, run, "bash") == "3 rows of monday"


async def test_an_event_of_an_asset_starts_the_run_of_another_dag(client):
    """The asset is a dataset: its event has the `extra` of the task."""
    await once(client, "classic")

    async def consumed():
        found = [run async for run in client.runs(dag_id="consumer")]
        return next((run for run in found if run.ended_at), None)

    run = await Signal().wait_until(consumed, seconds=SECONDS, poll_seconds=0.2)
    assert await states(client, run.run_id) == {
        "events": "success",
        "double.0": "success",
        "total": "success",
    }
    assert await result(client, run, "total") == 14
    (event,) = [each async for each in client.events(dataset="s3://lake/orders")]
    assert event.extra == {"rows": 7}


async def test_retries_skips_failures_and_short_circuits(client):
    run, found = await ended(client, "endings")
    assert found == {
        "fails_once": "success",
        "skips": "skipped",
        "fails": "failed",
        "last": "success",
        "stop": "success",
        "never": "skipped",
    }
    assert await result(client, run, "fails_once") == 2
    failed = await client.task(run.run_id, "fails")
    assert (failed.error.type, failed.error.message) == ("AirflowFailException", "for good")
    assert "dags/classic.py" in failed.error.traceback


async def test_mapped_groups_setups_and_teardowns(client):
    run, found = await ended(client, "groups")
    assert set(found.values()) == {"success"}
    assert found.keys() >= {"each.double.0", "each.increment.2", "make", "clean"}
    assert await result(client, run, "total") == 15


async def test_a_task_starts_a_run_of_another_dag(client):
    """With a conf of which the other DAG declares a part."""
    _, found = await ended(client, "caller")
    assert found == {"call": "success"}
    (run,) = [each async for each in client.runs(dag_id="called")]
    await client.wait(run.run_id, timeout_seconds=SECONDS)
    assert await result(client, run, "given") == [5, [1]]
    assert run.logical_time == datetime(2026, 3, 4, tzinfo=UTC)


async def test_a_callback_of_a_dag_has_the_context_of_the_task_that_failed(client):
    run, _ = await ended(client, "tells")

    async def called():
        found = (await client.run(run.run_id)).callbacks
        return found[0] if found and found[0].state in ("success", "failed") else None

    call = await Signal().wait_until(called, seconds=SECONDS, poll_seconds=0.2)
    day = f"{run.created_at:%Y-%m-%d}"
    assert (call.state, call.name) == ("success", "on_failure_callback")
    assert f"told tells fails task_failure {day}" in call.output


async def test_an_event_through_an_alias_is_one_of_both(client):
    await once(client, "by_alias")

    async def consumed():
        found = [run async for run in client.runs(dag_id="of_alias")]
        return next((run for run in found if run.ended_at), None)

    run = await Signal().wait_until(consumed, seconds=SECONDS, poll_seconds=0.2)
    assert await result(client, run, "numbers") == [2]
    (event,) = [each async for each in client.events(dataset="s3://lake/monday")]
    assert event.extra == {"n": 2}


async def test_a_host_that_is_killed_is_started_again(client):
    """Its attempts end with it, and their retries wait for the next one."""
    run, found = await ended(client, "kills_host")
    assert found == {"kills": "success"}
    before, after = await result(client, run, "kills")
    assert before != after


async def test_on_kill_of_a_cancelled_attempt_is_called(client, folder):
    run_id = await client.trigger("endless")

    async def begun():
        lines = [each.message async for each in client.logs(run_id, "sleeps")]
        return "begun" in lines

    await Signal().wait_until(begun, seconds=SECONDS, poll_seconds=0.2)
    await client.cancel(run_id)
    await Signal().wait_until((folder / "killed").exists, seconds=SECONDS, poll_seconds=0.1)


async def test_deferred_tasks_and_sensors(client):
    run, found = await ended(client, "waiting")
    assert found == {
        "twice": "success",
        "unseen": "failed",
        "late": "failed",
        "sensor": "success",
        "file": "success",
        "values": "success",
    }
    assert await result(client, run, "twice") == ["kept", 4, True]
    unseen = await client.task(run.run_id, "unseen")
    assert unseen.error.type == "TaskDeferralError"
    assert (await client.task(run.run_id, "late")).error.type == "TaskDeferralTimeout"


async def test_what_a_task_leaves_is_seen_by_those_beside(client):
    """An XCom, of this attempt alone, a variable, and what the attempts of a task keep."""
    run, found = await ended(client, "beside")
    assert found == {"pushes": "success", "hears": "success", "after": "success"}
    pushed = await result(client, run, "pushes")
    assert pushed in (["2", 2], ["2", None])  # Airflow 3.2 has no store of tasks
    assert await result(client, run, "after") == [{"a": [1]}, "gone"]


async def test_tasks_wait_for_runs_and_tasks_of_another_dag(client):
    """By looking, rescheduled and deferred; a run is started once, and its failure fails."""
    run, found = await ended(client, "looks")
    assert found == {
        "poked": "success",
        "rescheduled": "success",
        "deferred": "success",
        "waited": "success",
        "again": "skipped",
        "fails": "failed",
        "states": "success",
    }
    tasks = {"group.one": "success", "group.two": "success"}
    assert await result(client, run, "states") == ["success", 1, 2, {"first": tasks}, "first"]


async def test_a_task_reads_the_events_of_its_inlets(client):
    """Those of the runs before: of an asset, and of an alias."""
    await once(client, "classic")
    await once(client, "by_alias")
    run, found = await ended(client, "inlets")
    assert found == {"reads": "success"}
    assert await result(client, run, "reads") == [[7], [2]]


async def test_a_task_reaches_values_of_other_runs_and_of_its_surroundings(client):
    """And the run before, templates in files; a trigger variables."""
    first, _ = await ended(client, "reached", logical_time=datetime(2026, 4, 1, tzinfo=UTC))
    assert await result(client, first, "value") == [None, None, 7]
    second, _ = await ended(client, "reached", logical_time=datetime(2026, 4, 2, tzinfo=UTC))
    assert await result(client, second, "value") == [first.run_id, "success", 7]
    run, found = await ended(client, "reaches", params={"run_id": first.run_id})
    assert set(found.values()) == {"success"}
    assert await result(client, run, "templated") == "eu elsewhere 3"
    assert await result(client, run, "trigger") == "eu"
    assert await result(client, run, "other") == [[None, None, 7], ["looked_at"], False]
    names, kept = await result(client, run, "keeps")
    assert (names, kept) == (["reaching_a", "reaching_b"], {"row": 3})


async def test_a_retry_policy_decides(client):
    if "hurried" not in {dag.dag_id for dag in (await client.dags()).items}:
        pytest.skip("this release has no retry policies")
    run, found = await ended(client, "hurried")
    assert found == {"fails": "failed"}
    task = await client.task(run.run_id, "fails")
    assert (task.attempt, task.error.message) == (2, "2")
