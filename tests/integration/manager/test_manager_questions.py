"""Questions of Airflow's tasks: managers answer those of such tasks, and of no other."""

from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

import pytest

from pubsubflow.model.schedule.conditions import ScheduleSpec, Tick
from pubsubflow.model.schedule.timetable import CronSpec
from pubsubflow.model.wire.commands import StartRun
from pubsubflow.model.wire.messages import encode
from pubsubflow.model.wire.outputs import decode_pulled
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.model.wire.task_questions import (
    ChangeState,
    FindDag,
    FindEvents,
    FindRunBefore,
    FindRuns,
    FindTaskBefore,
    FindTasks,
    FindVariables,
    FoundNames,
    KeptValue,
    LeaveValue,
    ReadVariable,
    SetVariable,
    decode_fact,
)
from pubsubflow.model.wire.worker_requests import (
    LEASE_LOST,
    REFUSED,
    PullRequest,
    TaskQuestionRequest,
    decode_chunk,
)
from pubsubflow.store.secrets.keyring import Keyring
from pubsubflow.store.secrets.variables import Variables
from support.harness import Harness, post, running_managers
from support.specs import dag, task

pytestmark = pytest.mark.anyio
QUEUE = "default@airflow-team"
DAY = datetime(2026, 5, 6, tzinfo=UTC)


@pytest.fixture
def variables(database, tmp_path):
    return Variables(database, Keyring(tmp_path / "keys"), {})


@pytest.fixture
async def harness(database, bus, nats, variables):
    async with running_managers(database, bus, nats, variables=variables) as harness:
        daily = ScheduleSpec(Tick(0, CronSpec("0 0 * * *")))
        await harness.load(
            dag("asks", task("a", queue=QUEUE)),
            dag("seen", task("g.one", groups=("g",)), task("two", "g.one")),
            dag("by_day", task("c"), schedule=daily, interval_dates=True),
            dag("plain", task("n")),
        )
        yield harness


class Asker(NamedTuple):
    """A task that runs, with its fence; no worker of these tests has its queue."""

    run_id: UUID
    run: int
    node: int = 0
    map_index: int = -1
    attempt: int = 1
    delivery: int = 1


async def asker(harness, dag_id):
    run_id = UUID(str(await harness.call(StartRun(dag_id))))
    run = await harness.run_number(run_id)
    delivery = await harness.value("SELECT delivery FROM task_live WHERE run = $1", run)
    return Asker(run_id, run, delivery=delivery)


@pytest.fixture
async def order(harness):
    return await asker(harness, "asks")


async def request(harness, order, question, **other):
    fence = {name: value for name, value in order._asdict().items() if name != "run_id"}
    asked = TaskQuestionRequest(**(fence | other), question=question)
    return decode_chunk(await harness.bus.request(Subjects.WORKER_REQUEST, encode(asked), 5))


async def ask(harness, order, question):
    chunk = await request(harness, order, question)
    assert chunk.error is None
    return decode_fact(question, chunk.data)


async def test_runs_and_tasks_of_another_dag(harness, order):
    run_id = await harness.call(StartRun("seen", logical_time=DAY, run_key="mine"))
    (run,) = await ask(harness, order, FindRuns("seen", (DAY,)))
    assert (run.run_id, run.run_key, run.state, run.logical_date) == (
        str(run_id),
        "mine",
        "running",
        DAY,
    )
    assert await ask(harness, order, FindRuns("seen", run_ids=("mine",))) == (run,)
    assert await ask(harness, order, FindRuns("seen", run_ids=(str(run_id), "other"))) == (run,)
    assert await ask(harness, order, FindRuns("seen", (DAY,), states=("success",))) == ()
    assert await ask(harness, order, FindRuns("nowhere")) == ()
    await harness.finish("g.one")
    tasks = await ask(harness, order, FindTasks(FindRuns("seen", (DAY,))))
    assert {each.task_id: each.state for each in tasks} == {"g.one": "success", "two": "queued"}
    (one,) = await ask(harness, order, FindTasks(FindRuns("seen", run_ids=("mine",)), group="g"))
    assert (one.task_id, one.map_index, one.run.run_key) == ("g.one", -1, "mine")
    later = DAY.replace(day=7)
    before = await ask(harness, order, FindRunBefore("seen", later))
    assert before.run_id == str(run_id)
    assert await ask(harness, order, FindRunBefore("seen", DAY)) is None
    found = await ask(harness, order, FindTaskBefore("seen", "g.one", later, state="success"))
    assert found.run.run_id == str(run_id)
    fact = await ask(harness, order, FindDag("seen"))
    assert (fact.dag_id, fact.paused) == ("seen", False)
    await harness.call(StartRun("seen", logical_time=DAY))
    assert len(await ask(harness, order, FindRuns("seen", (DAY,)))) == 1


async def test_a_date_of_a_dag_with_intervals_is_that_of_its_tick(harness, order):
    await harness.call(StartRun("by_day", logical_time=DAY.replace(day=7)))
    await harness.rows("UPDATE run SET kind = 'cron' WHERE logical_time = $1", DAY.replace(day=7))
    (run,) = await ask(harness, order, FindRuns("by_day", (DAY,)))
    assert (run.logical_date, run.tick) == (DAY, DAY.replace(day=7))
    assert await ask(harness, order, FindRuns("by_day", (DAY.replace(day=7),))) == ()


async def test_events_of_a_dataset(harness, order):
    await harness.call(post("a", "b", "a", "a"))
    uri = "x://a"
    found = await ask(harness, order, FindEvents(uri))
    assert [each.dataset for each in found] == [uri] * 3
    last = await ask(harness, order, FindEvents(uri, limit=2, ascending=False))
    assert [each.event_id for each in last] == [each.event_id for each in reversed(found)][:2]
    first = await ask(harness, order, FindEvents(uri, limit=1))
    assert first == found[:1]
    assert await ask(harness, order, FindEvents(uri, before=DAY.replace(year=2000))) == ()


async def test_variables_are_set_at_once(harness, order, variables):
    assert await ask(harness, order, SetVariable("region", "eu")) is False
    assert await ask(harness, order, SetVariable("rows", '{"a": 1}', "of the team")) is False
    found = await variables.read("rows")
    assert (found.value, found.description) == ({"a": 1}, "of the team")
    names = await ask(harness, order, FindVariables("r", limit=1, offset=1))
    assert names == FoundNames(("rows",), 2)
    assert await ask(harness, order, SetVariable("region", None)) is True
    assert await ask(harness, order, SetVariable("region", None)) is False
    refused = await request(harness, order, ReadVariable("rows"))
    assert refused.error.startswith(REFUSED)
    assert (await request(harness, order, SetVariable("a b", "1"))).error.startswith(REFUSED)


async def test_what_a_task_leaves_is_pulled_while_it_runs(harness, order):
    async def pulled(*, early=True):
        asked = PullRequest(order.run, "a", "k", early=early)
        chunk = decode_chunk(await harness.bus.request(Subjects.WORKER_REQUEST, encode(asked), 5))
        return [value for _, value, _ in decode_pulled(chunk.data).values]

    await ask(harness, order, LeaveValue("k", encode(1)))
    await ask(harness, order, LeaveValue("k", encode({"n": 2})))
    assert [bytes(each) for each in await pulled()] == [encode({"n": 2})]
    assert await pulled(early=False) == []
    await ask(harness, order, LeaveValue("k", None))
    assert await pulled() == []
    await ask(harness, order, LeaveValue("k", encode(3)))
    await Harness.finish(harness, order.run_id, 0)
    await harness.until_states("success", dag_id="asks")
    assert [bytes(each) for each in await pulled()] == [encode(None)]


async def test_values_that_a_task_and_a_dataset_keep(harness, order):
    for uri in (None, "s3://lake/kept"):
        get = ChangeState("get", uri, "k")
        assert await ask(harness, order, get) is None
        await ask(harness, order, ChangeState("set", uri, "k", "1"))
        await ask(harness, order, ChangeState("set", uri, "k", "[2]"))
        assert await ask(harness, order, get) == KeptValue("[2]")
        await ask(harness, order, ChangeState("delete", uri, "k"))
        assert await ask(harness, order, get) is None
        await ask(harness, order, ChangeState("set", uri, "k", "1"))
        await ask(harness, order, ChangeState("clear", uri))
        assert await ask(harness, order, get) is None
    over = datetime(2026, 1, 1, tzinfo=UTC)
    await ask(harness, order, ChangeState("set", None, "k", "1", over))
    assert await ask(harness, order, ChangeState("get", None, "k")) is None


@pytest.mark.parametrize("question", [FindRuns("seen"), LeaveValue("k", b"\x01")])
async def test_other_tasks_and_other_fences_are_refused(harness, order, question):
    native = await asker(harness, "plain")
    refused = await request(harness, native, question)
    assert refused.error == f"{REFUSED}such questions are those of Airflow's tasks"
    lost = await request(harness, order, question, attempt=2)
    assert lost.error.startswith(LEASE_LOST)
    await Harness.finish(harness, order.run_id, 0)
    await harness.until_states("success", dag_id="asks")
    assert (await request(harness, order, question)).error.startswith(LEASE_LOST)
