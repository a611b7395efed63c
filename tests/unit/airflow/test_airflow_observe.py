"""A running Airflow is watched and posted to: nothing is lost, and nothing is doubled."""

from datetime import UTC, datetime, timedelta

import anyio
import pytest

from pubsubflow import DAG, Dataset
from pubsubflow.airflow.observe import AirflowAssetEvents, AirflowRuns, PostAssetEvents
from pubsubflow.errors import DefinitionError, TriggerError
from pubsubflow.testing import TrialContext, first_events, round_trip
from support.airflow_api import fake_airflow

pytestmark = pytest.mark.anyio
NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)
ORDERS = AirflowAssetEvents(asset="s3://lake/orders", since=NOON)


def context(airflow, position=None):
    account = {"kind": "http", "uri": airflow.url, "user": "ann", "password": "hush"}
    account["uri"] = airflow.url.replace("://", "://ann:hush@")
    return TrialContext(connections={"airflow": account["uri"]}, position=position)


async def test_events_of_an_asset_page_by_page():
    async with fake_airflow() as airflow:
        airflow.add(1, {"before": True}, NOON - timedelta(seconds=1))
        for number in range(130):
            airflow.add(1, {"rows": number}, NOON + timedelta(seconds=number))
        airflow.add(2, {"other": True}, NOON)
        events = await first_events(ORDERS, 130, ctx=context(airflow))
        assert [event.payload["rows"] for event in events] == list(range(130))
        assert events[0].payload["airflow"]["event_id"] == 2
        assert airflow.tokens == 1


async def test_after_a_restart_the_last_minutes_are_looked_at_again():
    """One that was committed late is found, and what is found twice has the id that it had."""
    async with fake_airflow() as airflow:
        for minute in (0, 60):
            airflow.add(1, {}, NOON + timedelta(minutes=minute))
        first = await first_events(ORDERS, 2, ctx=context(airflow))
        airflow.add(1, {"late": True}, NOON + timedelta(minutes=58))
        again = await first_events(ORDERS, 2, ctx=context(airflow, first[-1].position))
        assert again[0].payload["late"]
        assert again[1].id == first[1].id
        # Another one, in the same process, is found although a newer one was reported.
        watch = AirflowAssetEvents(asset="s3://lake/orders")
        begun = first[0].position[0]
        assert datetime.fromisoformat(begun) == NOON
        (event,) = await first_events(
            watch, 1, ctx=context(airflow, [(NOON + timedelta(minutes=59)).isoformat()] * 2)
        )
        assert event.id == first[1].id  # what was before the first start stays out


async def test_an_airflow_that_is_away_and_a_token_that_is_over():
    async with fake_airflow() as airflow:
        airflow.add(1, {"rows": 1}, NOON)
        airflow.broken = 2
        ctx = context(airflow)
        assert len(await first_events(ORDERS, 1, ctx=ctx)) == 1
        assert "503" in ctx.troubles[0]
        assert ctx.troubles[-1] is None


async def test_an_asset_that_is_not_there_yet():
    async with fake_airflow() as airflow:
        ctx = context(airflow)
        watch = AirflowAssetEvents(asset="s3://lake/bills", since=NOON)
        async with anyio.create_task_group() as group:
            found = []

            async def look():
                found.extend(await first_events(watch, 1, ctx=ctx))
                group.cancel_scope.cancel()

            group.start_soon(look)
            while not ctx.troubles:  # noqa: ASYNC110 - the list is the trial's
                await anyio.sleep(0.01)
            assert "Airflow has no asset 's3://lake/bills'" in ctx.troubles[0]
            airflow.assets.append("s3://lake/bills")
            airflow.add(3, {"rows": 9})
            await anyio.sleep_forever()
        assert found[0].payload["rows"] == 9


async def test_runs_that_end():
    async with fake_airflow() as airflow:
        for number, state in enumerate(("success", "failed", "success")):
            moment = (NOON + timedelta(hours=number)).isoformat()
            airflow.runs.append({"dag_run_id": f"r{number}", "state": state, "end_date": moment})
        found = await first_events(
            AirflowRuns(dag_id="produce", since=NOON), 2, ctx=context(airflow)
        )
        assert [event.payload["dag_run_id"] for event in found] == ["r0", "r2"]


async def test_a_password_that_is_wrong_is_shown_and_a_wrong_connection_fails():
    async with fake_airflow() as airflow:
        with pytest.raises(TriggerError):
            await first_events(AirflowRuns(dag_id="x", connection="none"), ctx=context(airflow))


def test_fields():
    assert round_trip(ORDERS) == ORDERS
    with pytest.raises(DefinitionError, match="since needs a time zone"):
        AirflowRuns(dag_id="x", since=datetime(2026, 1, 1))  # noqa: DTZ001
    with pytest.raises(DefinitionError, match="interval"):
        AirflowRuns(dag_id="x", interval=timedelta(0))


def posting(**options):
    with DAG("tell", schedule=Dataset("s3://lake/orders")) as dag:
        PostAssetEvents(task_id="post", **options)
    return dag


async def run(dag, airflow, *events):
    connections = {"airflow": airflow.url.replace("://", "://ann:hush@")}
    return await anyio.to_thread.run_sync(
        lambda: dag.test(events=list(events), connections=connections)
    )


async def test_events_are_posted_once_and_those_of_airflow_not_at_all():
    async with fake_airflow() as airflow:
        dropped = []

        def drop():
            """Break once the event is stored: its answer is lost."""
            if not dropped:
                dropped.append(True)
                raise ConnectionResetError

        airflow.after_post = drop
        events = [("s3://lake/orders", {"rows": n}) for n in (1, 2)]
        theirs = ("s3://lake/orders", {"rows": 3, "airflow": {"event_id": 7}})
        done = await run(posting(retries=1), airflow, *events, theirs)
        assert done.state == "success", done.tasks["post"][0].error.traceback
        assert [body["extra"]["rows"] for body in airflow.posted] == [1, 2]
        assert len({body["extra"]["pubsubflow_event"] for body in airflow.posted}) == 2
        # What we have posted does not come back.
        airflow.add(1, {"rows": 4}, datetime.now(UTC))
        (event,) = await first_events(ORDERS, 1, ctx=context(airflow))
        assert event.payload["rows"] == 4


async def test_an_asset_that_airflow_does_not_know():
    async with fake_airflow() as airflow:
        done = await run(posting(asset="s3://no/such"), airflow, ("s3://lake/orders", {}))
        assert done.state == "failed"
        assert "Airflow has no asset 's3://no/such'" in str(done.tasks["post"][0].error)
