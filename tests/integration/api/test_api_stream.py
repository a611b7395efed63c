"""The live stream: what happens, as it happens."""

from datetime import UTC, datetime

import anyio
import pytest

from pubsubflow.api import ApiSettings
from pubsubflow.api.stream.settings import StreamSettings
from pubsubflow.manager import Sweeper, SweeperSettings
from pubsubflow.model.changes import DagChange, DagChanged, LogPosition, encode_records
from pubsubflow.store.named_queries import SQL
from support.specs import dag, loaded, task
from support.stream_reader import facts, listening

pytestmark = pytest.mark.anyio

LANDING = "s3://lake/landing"


async def one_run(harness, dag_id="d"):
    run_id = await harness.start(dag_id)
    await harness.begin(run_id, 0)
    path = f"/api/v1/runs/{run_id}/tasks/work"
    await harness.get_until(path, lambda shown: shown["state"] == "running")
    await harness.finish(run_id, 0)
    await harness.wait(run_id, "success")
    return run_id


async def test_the_changes_of_a_run_come_in_order(harness):
    await harness.load(
        dag("d", task("work", outlets=(LANDING,))), dag("after", task("work"), on=[LANDING])
    )
    async with listening(harness.url) as reader:
        run_id = await one_run(harness)
        found = await reader.take(8)
        assert facts(found) == [
            ("run", "d", "running"),
            ("task", "work", "queued"),
            ("task", "work", "running"),
            ("task", "work", "success"),
            ("dataset", LANDING, None),
            ("run", "after", "running"),
            ("run", "d", "success"),
            ("task", "work", "queued"),
        ]
        emitted = found[4].change()
        assert (emitted.run_id, emitted.dag_id, emitted.task_id) == (run_id, "d", "work")


async def test_changes_of_a_dag_and_of_its_file_are_sent(harness):
    async with listening(harness.url) as reader:
        await harness.load(dag("d", task("work")))
        await harness.load(dag("d", task("work")))  # nothing changes
        await harness.request("PATCH", "/api/v1/dags/d", json={"paused": True})
        await harness.request("PATCH", "/api/v1/dags/d", json={"paused": True})
        await harness.request("PATCH", "/api/v1/dags/d", json={"paused": False})
        await harness.load(dag("d", task("other")))
        for _ in range(2):
            await harness.catalog.save([loaded(file="d.py", error="SyntaxError: invalid")])
        await harness.load(dag("d", task("other")))
        await harness.catalog.remove(["d.py"])
        found = await reader.take(7)
        assert facts(found) == [
            ("dag", "d", "version"),
            ("dag", "d", "paused"),
            ("dag", "d", "unpaused"),
            ("dag", "d", "version"),
            ("import", "d.py", None),
            ("import", "d.py", None),
            ("dag", "d", "missing"),
        ]
        assert [found[n].change().version for n in (0, 3)] == [1, 2]
        assert [found[n].change().error for n in (4, 5)] == ["SyntaxError: invalid", None]


async def test_filters_hold_together_and_their_values_side_by_side(harness):
    await harness.load(dag("a", task("work")), dag("b", task("work")), dag("c", task("work")))
    requested = (("dag", "a"), ("dag", "b"), ("kind", "run"))
    async with listening(harness.url, *requested) as some:
        for dag_id in "cab":
            await one_run(harness, dag_id)
        assert facts(await some.take(4)) == [
            ("run", "a", "running"),
            ("run", "a", "success"),
            ("run", "b", "running"),
            ("run", "b", "success"),
        ]
    async with listening(harness.url) as whole:
        run_id = await harness.start("a")
        await whole.take(2)
    requested = (("run", run_id.upper()), ("kind", "task"))
    async with listening(harness.url, *requested, last_id=whole.last_id) as one:
        await one_run(harness, "a")
        await harness.finish(run_id, 0)
        assert facts(await one.take(1)) == [("task", "work", "success")]


async def test_datasets_are_chosen_by_uri_or_pattern(harness):
    requested = (("dataset", "S3://Lake/*"), ("dataset", "x://one/"))
    async with listening(harness.url, *requested) as reader:
        for uri in ("s3://lake/a/b", "x://other", "s3://lake/a", "x://one"):
            await harness.post("/api/v1/datasets/events", {"dataset": uri, "extra": {"n": 1}})
        found = await reader.take(2)
        assert [message.change().dataset for message in found] == ["s3://lake/a", "x://one"]
        assert found[0].change().extra == {"n": 1}


async def test_a_large_extra_stays_behind(harness):
    async with listening(harness.url) as reader:
        await harness.post(
            "/api/v1/datasets/events", {"dataset": LANDING, "extra": {"n": "x" * 9000}}
        )
        (reply,) = await reader.take()
        assert reply.change().extra is None


@pytest.mark.parametrize(
    ("query", "word"), [("kind=reset", "kind"), ("dataset=none", "URI"), ("dgs=a", "dgs")]
)
async def test_a_malformed_question_is_refused(harness, query, word):
    problem = await harness.get(f"/api/v1/stream?{query}", status=400)
    assert word in problem["detail"]


async def test_one_goes_on_after_any_message_at_any_daemon(harness, serve):
    await harness.load(dag("d", task("work")))
    async with listening(harness.url) as whole:
        start = whole.last_id
        for _ in range(2):
            await one_run(harness)
        messages = await whole.take(10)
    async with serve() as (other, _):
        for count in range(11):
            last_id = messages[count - 1].id if count else start
            url = (harness.url, other.url)[count % 2]
            async with listening(url, last_id=last_id) as reader:
                assert await reader.take(10 - count) == messages[count:]


async def test_a_page_goes_on_by_its_address(harness):
    async with listening(harness.url) as first:
        start = first.last_id
    await harness.post("/api/v1/datasets/events", {"dataset": LANDING})
    async with listening(harness.url, ("last_event_id", start)) as second:
        assert facts(await second.take()) == [("dataset", LANDING, None)]


async def test_what_is_kept_no_more_is_said_to_be_gone(harness):
    async with listening(harness.url) as first:
        old = first.last_id
        await harness.post("/api/v1/datasets/events", {"dataset": LANDING})
        (last,) = await first.take()
    settings = SweeperSettings(history_hours=0)
    await Sweeper(database=harness.database, bus=harness.bus, settings=settings).sweep()
    for place in (old, "nonsense", "0-1-1", str(LogPosition(LogPosition.parse(old).log, 10**9))):
        async with listening(harness.url, ("kind", "dataset"), last_id=place) as reader:
            await harness.post("/api/v1/datasets/events", {"dataset": "x://later"})
            reset, later = await reader.take(2)
            assert reset.event == "reset"
            assert reset.change().reason == ("expired" if place == old else "unknown")
            assert later.change().dataset == "x://later"
    async with listening(harness.url, last_id=later.id) as reader:
        await harness.post("/api/v1/datasets/events", {"dataset": "x://last"})
        assert facts(await reader.take()) == [("dataset", "x://last", None)]
    assert LogPosition.parse(last.id).log == LogPosition.parse(later.id).log


async def test_a_change_that_commits_late_keeps_its_position(harness):
    """A transaction that has its number first and commits last is waited for, and comes first."""
    async with listening(harness.url) as reader:
        async with harness.database.connection() as connection:
            transaction = connection.transaction()
            await transaction.start()
            time = datetime.now(UTC)
            late = DagChanged(dag_id="late", change=DagChange.PAUSED, time=time)
            await connection.execute(SQL["record_changes"], encode_records([late]))
            await harness.post("/api/v1/datasets/events", {"dataset": LANDING})
            with anyio.move_on_after(0.1) as early:
                await reader.take()
            assert early.cancelled_caught
            await transaction.commit()
        assert facts(await reader.take(2)) == [
            ("dag", "late", "paused"),
            ("dataset", LANDING, None),
        ]


async def test_a_failed_transaction_holds_nothing_up(harness):
    async with listening(harness.url) as reader:
        async with harness.database.connection() as connection:
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute(SQL["record_changes"], b"no news")
            await transaction.rollback()
        await harness.post("/api/v1/datasets/events", {"dataset": LANDING})
        assert facts(await reader.take()) == [("dataset", LANDING, None)]


async def test_a_stream_outlives_its_connections_to_postgres(harness):
    async with listening(harness.url) as reader:
        for number in range(3):
            async with harness.database.connection() as connection:
                await connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            await harness.post("/api/v1/datasets/events", {"dataset": f"x://{number}"})
            assert facts(await reader.take()) == [("dataset", f"x://{number}", None)]


async def test_streams_end_when_the_daemon_does(harness, serve):
    async with serve() as (api, stopping), listening(api.url) as reader:
        stopping.set()
        assert await reader.rest() == []


async def test_who_hears_nothing_gets_a_sign_of_life_and_a_place(serve, harness):
    settings = StreamSettings(heartbeat_seconds=0.05)
    async with serve(stream=settings) as (api, _), listening(api.url, ("kind", "dag")) as reader:
        await harness.post("/api/v1/datasets/events", {"dataset": LANDING})
        before = reader.last_id
        with anyio.fail_after(20):
            while reader.last_id == before:
                data = await reader.response.content.readany()
                assert reader._parser.feed(data) == []


async def test_a_client_that_takes_nothing_is_cut_off(serve, harness, manager):
    """And costs no memory; it goes on where it was."""
    settings = StreamSettings(stall_seconds=0.2, recent_bytes=1)
    async with serve(ApiSettings(port=0), stream=settings) as (api, _):
        host, port = api.url.removeprefix("http://").split(":")
        async with await anyio.connect_tcp(host, int(port)) as stream:
            await stream.send(b"GET /api/v1/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
            got = await stream.receive()
            start = got.decode().partition("id: ")[2].partition("\n")[0]
            event = {"dataset": LANDING, "extra": {"n": "x" * 7000}}
            for _ in range(8):
                await harness.post("/api/v1/datasets/events", [event] * 100)
            with anyio.fail_after(20):
                while api._stream._feed._listeners:
                    await harness.post("/api/v1/datasets/events", [event] * 10)
        async with listening(api.url, last_id=start) as reader:
            assert len({message.id for message in await reader.take(800)}) == 800
