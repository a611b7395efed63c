"""The live stream: what happens, as it happens."""

from datetime import UTC, datetime

import anyio
import pytest
from api_rig import broken_file, dag, task
from stream_reader import facts, listening

from pubsubflow.api import ApiSettings
from pubsubflow.api.stream.settings import LiveSettings
from pubsubflow.manager import Sweeper, SweeperSettings
from pubsubflow.model.changes import DagChange, DagNews, Place, encode_items, item_of
from pubsubflow.store.named_queries import SQL

pytestmark = pytest.mark.anyio

LANDING = "s3://lake/landing"


async def one_run(rig, dag_id="d"):
    run_id = await rig.start(dag_id)
    await rig.begin(run_id, 0)
    path = f"/api/v1/runs/{run_id}/tasks/work"
    await rig.until(path, lambda shown: shown["state"] == "running")
    await rig.finish(run_id, 0)
    await rig.wait(run_id, "success")
    return run_id


async def test_what_happens_to_a_run_is_told_in_order(rig):
    await rig.load(
        dag("d", task(0, "work", outlets=(LANDING,))), dag("after", task(0, "work"), on=[LANDING])
    )
    async with listening(rig.url) as reader:
        run_id = await one_run(rig)
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
        emitted = found[4].news()
        assert (emitted.run_id, emitted.dag_id, emitted.task_id) == (run_id, "d", "work")


async def test_a_dag_and_its_file_are_told_of(rig):
    async with listening(rig.url) as reader:
        await rig.load(dag("d", task(0, "work")))
        await rig.load(dag("d", task(0, "work")))  # nothing changes
        await rig.ask("PATCH", "/api/v1/dags/d", json={"paused": True})
        await rig.ask("PATCH", "/api/v1/dags/d", json={"paused": True})
        await rig.ask("PATCH", "/api/v1/dags/d", json={"paused": False})
        await rig.load(dag("d", task(0, "other")))
        for _ in range(2):
            await rig.catalog.save([broken_file("d.py", "SyntaxError: invalid")])
        await rig.load(dag("d", task(0, "other")))
        await rig.catalog.remove(["d.py"])
        found = await reader.take(7)
        assert facts(found) == [
            ("dag", "d", "version"),
            ("dag", "d", "paused"),
            ("dag", "d", "unpaused"),
            ("dag", "d", "version"),
            ("import", "d.py", None),
            ("import", "d.py", None),
            ("dag", "d", "retired"),
        ]
        assert [found[n].news().version for n in (0, 3)] == [1, 2]
        assert [found[n].news().error for n in (4, 5)] == ["SyntaxError: invalid", None]


async def test_filters_hold_together_and_their_values_side_by_side(rig):
    await rig.load(dag("a", task(0, "work")), dag("b", task(0, "work")), dag("c", task(0, "work")))
    asked = (("dag", "a"), ("dag", "b"), ("kind", "run"))
    async with listening(rig.url, *asked) as some:
        for dag_id in "cab":
            await one_run(rig, dag_id)
        assert facts(await some.take(4)) == [
            ("run", "a", "running"),
            ("run", "a", "success"),
            ("run", "b", "running"),
            ("run", "b", "success"),
        ]
    async with listening(rig.url) as whole:
        run_id = await rig.start("a")
        await whole.take(2)
    asked = (("run", run_id.upper()), ("kind", "task"))
    async with listening(rig.url, *asked, last_id=whole.last_id) as one:
        await one_run(rig, "a")
        await rig.finish(run_id, 0)
        assert facts(await one.take(1)) == [("task", "work", "success")]


async def test_datasets_are_chosen_by_uri_or_pattern(rig):
    asked = (("dataset", "S3://Lake/*"), ("dataset", "x://one/"))
    async with listening(rig.url, *asked) as reader:
        for uri in ("s3://lake/a/b", "x://other", "s3://lake/a", "x://one"):
            await rig.post("/api/v1/datasets/events", {"dataset": uri, "extra": {"n": 1}})
        found = await reader.take(2)
        assert [message.news().dataset for message in found] == ["s3://lake/a", "x://one"]
        assert found[0].news().extra == {"n": 1}


async def test_a_large_extra_stays_behind(rig):
    async with listening(rig.url) as reader:
        await rig.post("/api/v1/datasets/events", {"dataset": LANDING, "extra": {"n": "x" * 9000}})
        (told,) = await reader.take()
        assert told.news().extra is None


@pytest.mark.parametrize(
    ("query", "word"), [("kind=reset", "kind"), ("dataset=none", "URI"), ("dgs=a", "dgs")]
)
async def test_a_malformed_question_is_refused(rig, query, word):
    problem = await rig.get(f"/api/v1/stream?{query}", status=400)
    assert word in problem["detail"]


async def test_one_goes_on_after_any_message_at_any_daemon(rig, serve):
    await rig.load(dag("d", task(0, "work")))
    async with listening(rig.url) as whole:
        start = whole.last_id
        for _ in range(2):
            await one_run(rig)
        messages = await whole.take(10)
    async with serve() as (other, _):
        for count in range(11):
            last_id = messages[count - 1].id if count else start
            url = (rig.url, other.url)[count % 2]
            async with listening(url, last_id=last_id) as reader:
                assert await reader.take(10 - count) == messages[count:]


async def test_a_page_goes_on_by_its_address(rig):
    async with listening(rig.url) as first:
        start = first.last_id
    await rig.post("/api/v1/datasets/events", {"dataset": LANDING})
    async with listening(rig.url, ("last_event_id", start)) as second:
        assert facts(await second.take()) == [("dataset", LANDING, None)]


async def test_what_is_kept_no_more_is_said_to_be_gone(rig):
    async with listening(rig.url) as first:
        old = first.last_id
        await rig.post("/api/v1/datasets/events", {"dataset": LANDING})
        (last,) = await first.take()
    settings = SweeperSettings(news_hours=0)
    await Sweeper(database=rig.database, bus=rig.bus, settings=settings).sweep()
    for place in (old, "nonsense", "0-1-1", str(Place(Place.parse(old).log, 10**9))):
        async with listening(rig.url, ("kind", "dataset"), last_id=place) as reader:
            await rig.post("/api/v1/datasets/events", {"dataset": "x://later"})
            reset, later = await reader.take(2)
            assert reset.event == "reset"
            assert reset.news().reason == ("expired" if place == old else "unknown")
            assert later.news().dataset == "x://later"
    async with listening(rig.url, last_id=later.id) as reader:
        await rig.post("/api/v1/datasets/events", {"dataset": "x://last"})
        assert facts(await reader.take()) == [("dataset", "x://last", None)]
    assert Place.parse(last.id).log == Place.parse(later.id).log


async def test_what_is_told_late_keeps_its_place(rig):
    """A transaction that has its number first and commits last is waited for, and comes first."""
    async with listening(rig.url) as reader:
        async with rig.database.connection() as connection:
            transaction = connection.transaction()
            await transaction.start()
            time = datetime.now(UTC)
            late = item_of(DagNews(dag_id="late", change=DagChange.PAUSED, time=time))
            await connection.execute(SQL["record_news"], encode_items([late]))
            await rig.post("/api/v1/datasets/events", {"dataset": LANDING})
            with anyio.move_on_after(0.1) as early:
                await reader.take()
            assert early.cancelled_caught
            await transaction.commit()
        assert facts(await reader.take(2)) == [
            ("dag", "late", "paused"),
            ("dataset", LANDING, None),
        ]


async def test_a_transaction_that_failed_holds_nobody_up(rig):
    async with listening(rig.url) as reader:
        async with rig.database.connection() as connection:
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute(SQL["record_news"], b"no news")
            await transaction.rollback()
        await rig.post("/api/v1/datasets/events", {"dataset": LANDING})
        assert facts(await reader.take()) == [("dataset", LANDING, None)]


async def test_a_stream_outlives_its_connections_to_postgres(rig):
    async with listening(rig.url) as reader:
        for number in range(3):
            async with rig.database.connection() as connection:
                await connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            await rig.post("/api/v1/datasets/events", {"dataset": f"x://{number}"})
            assert facts(await reader.take()) == [("dataset", f"x://{number}", None)]


async def test_streams_end_when_the_daemon_does(rig, serve):
    async with serve() as (api, stopping), listening(api.url) as reader:
        stopping.set()
        assert await reader.rest() == []


async def test_who_hears_nothing_gets_a_sign_of_life_and_a_place(serve, rig):
    live = LiveSettings(heartbeat_seconds=0.05)
    async with serve(live=live) as (api, _), listening(api.url, ("kind", "dag")) as reader:
        await rig.post("/api/v1/datasets/events", {"dataset": LANDING})
        before = reader.last_id
        with anyio.fail_after(20):
            while reader.last_id == before:
                data = await reader.response.content.readany()
                assert reader._parser.feed(data) == []


async def test_a_client_that_takes_nothing_is_cut_off(serve, rig, manager):
    """And costs no memory; it goes on where it was."""
    live = LiveSettings(stall_seconds=0.2, recent_bytes=1)
    async with serve(ApiSettings(port=0), live=live) as (api, _):
        host, port = api.url.removeprefix("http://").split(":")
        async with await anyio.connect_tcp(host, int(port)) as stream:
            await stream.send(b"GET /api/v1/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
            got = await stream.receive()
            start = got.decode().partition("id: ")[2].partition("\n")[0]
            event = {"dataset": LANDING, "extra": {"n": "x" * 7000}}
            for _ in range(8):
                await rig.post("/api/v1/datasets/events", [event] * 100)
            with anyio.fail_after(20):
                while api._live._feed._listeners:
                    await rig.post("/api/v1/datasets/events", [event] * 10)
        async with listening(api.url, last_id=start) as reader:
            assert len({message.id for message in await reader.take(800)}) == 800
