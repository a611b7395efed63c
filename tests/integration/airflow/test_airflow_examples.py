"""Airflow's own example DAGs, of its core and of the standard provider, run through a daemon."""

import shutil
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import anyio
import pytest

from pubsubflow.cli.daemon_process import child_daemon
from pubsubflow.client import Client
from support.airflow import SECONDS, fullest_python, give_time, run_inside
from support.signals import Signal

pytestmark = [pytest.mark.anyio, pytest.mark.soak]
# Those that end otherwise here than in success, and why.
OTHERWISE = {
    "example_task_state_store_async": "it calls what Airflow 3.3.2 has not: `aget`",
    "example_external_task_marker_child": "it waits for a group that its other DAG has not",
    "example_dag_decorator": "the internet",
    "example_retry_policy": "the internet",
    "example_sensors": "a sensor that waits for an hour",
    "tutorial_objectstorage": "pandas, which is not installed, or the internet",
    "example_kubernetes_executor": "a volume of its pod",
    "example_failed_dag": "it fails by design",
}
PARAMS = {
    "example_params_ui_tutorial": {"required_field": "a text that is long enough"},
    "example_passing_params_via_test_command": {"foo": "bar", "miff": "agg"},
}
# One waits for the run of the other that has the same date.
DATES = dict.fromkeys(
    ("example_external_task_marker_parent", "example_external_task_marker_child"),
    datetime(2026, 5, 6, tzinfo=UTC),
)
# One gives people five minutes to answer.
RUN_SECONDS = SECONDS + 30
AT_ONCE = 4
# Of 114, 104 are to succeed.
MOST_OTHERS = 10
WHERE = """
def main():
    import importlib.util
    import airflow, airflow.providers.standard as standard
    print(importlib.util.find_spec("kubernetes") is not None)
    for package in (airflow, standard):
        print(package.__path__[0] + "/example_dags")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    python = fullest_python()
    made = tmp_path_factory.mktemp("examples")
    (made / "where.py").write_text(WHERE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(made))
        printed = run_inside("where:main", home=made, python=python).decode().splitlines()
    pods, *places = printed[-3:]
    for name, place in zip(("core", "standard"), places, strict=True):
        # Airflow 3.2 has a copy of the provider's among its own.
        ignored = ["__pycache__", "plugins", "libs", "standard", "__init__.py"]
        # Two make no DAG where Kubernetes' client is not installed.
        ignored += [] if pods == "True" else ["example_*kubernetes_executor.py"]
        patterns = shutil.ignore_patterns(*ignored)
        shutil.copytree(place, made / "dags" / name, ignore=patterns)
    plugins = made / "home" / "plugins"
    shutil.copytree(Path(places[0], "plugins"), plugins)
    return made


@pytest.fixture(scope="module")
def url(folder, fresh_home):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PUBSUBFLOW__BUNDLES__EXAMPLES__KIND", "airflow")
        patch.setenv("PUBSUBFLOW__BUNDLES__EXAMPLES__PATH", ".")
        patch.setenv("PUBSUBFLOW__BUNDLES__EXAMPLES__PYTHON", fullest_python())
        patch.setenv("PUBSUBFLOW__BUNDLES__EXAMPLES__AIRFLOW_HOME", str(folder / "home"))
        patch.setenv("PUBSUBFLOW_VAR_VARIABLE_KEY", "x")
        # The queue that a task names for its executor.
        patch.setenv("PUBSUBFLOW__WORKER__QUEUES", "default,kubernetes")
        give_time(patch)
        with child_daemon(folder / "dags", home=fresh_home(folder / "own"), port=0) as started:
            yield started


def core_files(folder):
    return {f"core/{file.name}" for file in (folder / "dags" / "core").glob("*.py")}


async def loaded(client, folder):
    """Return the DAGs once all files are loaded: when no further one has come for a while."""
    seen: list[int] = []

    async def settled():
        page = await client.dags(limit=500)
        seen.append(len(page.items))
        # One computes its ticks for half a minute.
        named = {each.file for each in (*page.items, *page.import_errors)}
        waits = len(seen) <= 20 or len(set(seen[-20:])) > 1 or core_files(folder) - named
        return None if waits else page

    return await Signal().wait_until(settled, seconds=SECONDS, poll_seconds=0.5)


async def end_of(client, dag_id):
    """Run a DAG; return its state, and the errors of its tasks."""
    try:
        run_id = await client.trigger(
            dag_id, params=PARAMS.get(dag_id), logical_time=DATES.get(dag_id)
        )
    except Exception as error:  # noqa: BLE001 - it is the outcome
        return "refused", {"": str(error)[:150]}
    try:
        state = str((await client.wait(run_id, timeout_seconds=RUN_SECONDS)).state)
    except Exception as error:  # noqa: BLE001 - likewise
        state = f"not ended ({type(error).__name__})"
    problems = {}
    async for each in client.tasks(run_id):
        if str(each.state) in ("success", "skipped", "upstream_failed"):
            continue
        index = "" if each.map_index is None else f".{each.map_index}"
        error = (await client.task(run_id, each.task_id + index)).error
        text = f"{error.type}: {error.message}" if error else ""
        problems[each.task_id] = f"{each.state} {text}"[:160]
    if not state.startswith(("success", "failed")):
        await client.cancel(run_id)
    return state, problems


async def answer_all(client):
    """Answer what waits for people: with the first option, and something for each field."""
    while True:
        async for each in client.approvals():
            fields = (each.form or {}).get("properties", {})
            values = {name: _filled(schema) for name, schema in fields.items()}
            with suppress(Exception):  # answered meanwhile, or it fails and is listed
                await client.answer_approval(each.id, each.options[0], values=values)
        await anyio.sleep(1)


def _filled(schema):
    if schema.get("type") == "array":
        return schema.get("items", {}).get("enum", [])[:1]
    return "x"


async def test_examples_succeed(url, folder):
    async with Client(url) as client:
        page = await loaded(client, folder)
        ends: dict[str, tuple[str, dict[str, str]]] = {}
        limit = anyio.CapacityLimiter(AT_ONCE)

        async def one(dag_id):
            async with limit:
                ends[dag_id] = await end_of(client, dag_id)

        async with anyio.create_task_group() as people:
            people.start_soon(answer_all, client)
            async with anyio.create_task_group() as group:
                for dag in page.items:
                    group.start_soon(one, dag.dag_id)
            people.cancel_scope.cancel()
    other = {dag_id: end for dag_id, end in sorted(ends.items()) if end[0] != "success"}
    for error in page.import_errors:
        print("IMPORT", error.file, error.error.splitlines()[0])
    for dag_id, end in other.items():
        print("OTHER", dag_id, *end)
    print("SUCCESS", len(ends) - len(other), "of", len(ends))
    assert core_files(folder) <= {dag.file for dag in page.items}
    assert len(other) <= MOST_OTHERS
    assert page.import_errors == []
    assert other.keys() <= OTHERWISE.keys()
