"""Random schedules, interleavings, crashes and clocks: managers against the reference model."""

import contextlib
import random
from collections import Counter
from datetime import timedelta

import anyio
import asyncpg
import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from pubsubflow.bus import Bus, BusSettings
from pubsubflow.errors import InvalidInput
from pubsubflow.model.spec import DagSpec, TaskSpec
from pubsubflow.model.wire.commands import Replay, SetPaused, StartRun
from pubsubflow.model.wire.messages import EmittedEvent
from pubsubflow.store.servers.settings import PostgresSettings
from support.stateful.schedules import Cluster, Scenario, open_cluster, scenario_name
from support.stateful.strategies import new_event, scenarios, schedule

pytestmark = [
    pytest.mark.anyio,
    # asyncpg complains when a connection that the scenario killed is collected.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
counted: Counter[str] = Counter()
EVERYTHING = {
    "dataset", "partition", "tick", "late", "replay", "filtered", "expired", "skipped", "dead"
}  # fmt: skip


@pytest.fixture(scope="module")
async def cluster(servers, anyio_backend):
    admin = await asyncpg.connect(servers.postgres.dsn)
    await admin.execute("CREATE DATABASE schedules TEMPLATE template_psf")
    await admin.close()
    nats = BusSettings(url=servers.nats.url, token=servers.nats.token)
    async with Bus.connect(nats) as connected:
        for stream in ("PSF_IN", "PSF_TASK", "PSF_EVT", "PSF_STATE"):
            await connected.request(f"$JS.API.STREAM.DELETE.{stream}", b"", 5)
    address = msgspec.structs.replace(servers.postgres, database="schedules")
    async with open_cluster(PostgresSettings(url=address.dsn), nats) as opened:
        yield opened


def spec(drawn: dict, name: str, number: int) -> DagSpec:
    dag_id = f"{name}.d{number}"
    emits = (f"x://{name}/{drawn['emits']}",) if drawn["emits"] else ()
    return DagSpec(
        dag_id,
        f"{dag_id}.py",
        f"hash of {dag_id}",
        (TaskSpec(0, "t", kind="async", outlets=emits),),
        schedule=schedule(drawn["schedule"], name),
        max_active_runs=drawn["max_active_runs"],
        on_pause=drawn["on_pause"],
        catchup=drawn["catchup"],
        params={"v": 0},
        params_from={"v": "events[0].extra.v"} if drawn["particular"] else {},
    )


async def play(cluster: Cluster, drawn: dict) -> None:
    """Play a scenario and compare."""
    scenario = Scenario(cluster, scenario_name())
    dice = random.Random(drawn["dice"])
    rows = await scenario.rows("SELECT coalesce(max(id), 0) AS last FROM record")
    scenario.after = rows[0]["last"]
    specs = [spec(each, scenario.name, number) for number, each in enumerate(drawn["dags"])]
    late = drawn["late_comer"]
    await scenario.save(*specs[: 2 if late else 3])
    await scenario.watch()
    for number, (quiet, steps) in enumerate(drawn["rounds"]):
        if late and number == len(drawn["rounds"]) // 2:
            specs[2] = msgspec.structs.replace(specs[2], subscribe_from=late)
            await scenario.save(specs[2])
        async with anyio.create_task_group() as group:
            for step in steps:
                if step[0] != "change":
                    group.start_soon(perform, scenario, specs, step, dice)
        for step in steps:
            if step[0] == "change" and specs[step[1]].dag_id in scenario.files:
                await change(scenario, specs, step)
        counted["steps"] += len(steps)
        if quiet:
            await scenario.finish()
    await scenario.finish()
    await scenario.check()
    files = [*(each.file for each in specs), f"{scenario.name}.watch.py"]
    await scenario.cluster.catalog.remove(files)
    counted["scenarios"] += 1
    counted.update(scenario.covered)


async def change(scenario: Scenario, specs: list[DagSpec], step: tuple) -> None:
    _, number, drawn = step
    new = schedule(drawn, scenario.name)
    specs[number] = msgspec.structs.replace(specs[number], schedule=new)
    await scenario.save(specs[number])


async def perform(scenario: Scenario, specs: list[DagSpec], step: tuple, dice) -> None:
    cluster = scenario.cluster
    match step:
        case ("post", place, events, key):
            drawn = [new_event(event, scenario.name, cluster.time) for event in events]
            await scenario.post(place, drawn, key)
        case ("see", events, twice):
            drawn = [new_event(event, scenario.name, cluster.time) for event in events]
            await scenario.see(drawn, twice=twice)
        case ("answer", count, twice):
            emits = (
                (EmittedEvent(f"x://{scenario.name}/c", {"v": 3}),) if dice.random() < 0.3 else ()
            )
            await scenario.answer_some(count, dice, emits, twice=twice)
        case ("time", places, seconds):
            await scenario.fire_timers(places, seconds)
        case ("break",):
            await cluster.break_connections()
        case (kind, place, number, *rest) if specs[number].dag_id in scenario.files:
            await command(scenario, kind, place, specs[number].dag_id, *rest)


async def command(scenario: Scenario, kind: str, place: int, dag_id: str, *rest) -> None:
    cluster = scenario.cluster
    if kind == "pause":
        await cluster.call(place, SetPaused(dag_id, rest[0]))
    elif kind == "nap":
        await cluster.call(place, SetPaused(dag_id, paused=True))
        await scenario.fire_timers((place,), rest[0])
        await cluster.call(place, SetPaused(dag_id, paused=False))
    elif kind == "replay":
        since = cluster.time.replace(year=2000)
        if rest[0] is not None:
            since = cluster.time - timedelta(seconds=rest[0])
        until = None if rest[1] is None else since + timedelta(seconds=rest[1])
        with contextlib.suppress(InvalidInput):  # its schedule has ticks alone
            await cluster.call(place, Replay(dag_id, since, until))
    else:
        await cluster.call(place, StartRun(dag_id))


CHECKS = (HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large)
common = {
    "deadline": None,
    "database": None,
    "suppress_health_check": CHECKS,
    "phases": (Phase.explicit, Phase.generate),
    "print_blob": True,
}


@settings(max_examples=20, derandomize=True, **common)
@given(drawn=scenarios)
async def test_managers_do_what_the_reference_says(cluster, drawn):
    await play(cluster, drawn)


@pytest.fixture(scope="module")
def enough():
    """Check in the end, in the process that makes the steps, that each kind was among them."""
    yield
    print(dict(counted))
    assert counted["steps"] >= 20_000
    assert counted.keys() >= EVERYTHING


@pytest.mark.soak
@pytest.mark.usefixtures("enough")
@settings(max_examples=600, **common)
@given(drawn=scenarios)
async def test_managers_do_what_the_reference_says_for_long(cluster, drawn):
    await play(cluster, drawn)


def test_enough_steps_were_made():
    print(dict(counted))
    assert counted["steps"] >= 800
