"""A reload of the DAG files, and DAGs that are not in the folder at the moment."""

import anyio
import pytest

from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.store.catalog import Catalog
from support.specs import dag, loaded, task

pytestmark = pytest.mark.anyio


async def test_a_reload_reaches_the_loaders(harness, bus):
    arrived = anyio.Event()
    async with await bus.subscribe(Subjects.RELOAD, lambda _message: arrived.set()):
        answer = await harness.request("POST", "/api/v1/dags/reload", status=202)
        assert answer["requested_at"]
        with anyio.fail_after(10):
            await arrived.wait()


async def test_a_dag_that_is_missing_is_shown_as_such_and_then_as_gone(harness, database):
    catalog = Catalog(database)
    await catalog.save([loaded(dag("d", task("a"), on="x"))])
    await catalog.remove(["d.py"])
    (shown,) = (await harness.get("/api/v1/dags"))["items"]
    assert (shown["present"], shown["missing_since"] is None) == (False, False)
    waiting = await emitted(harness)
    assert await reason_of(harness, waiting) == (
        "pending",
        "the DAG is not in the DAGs folder at the moment",
    )
    await catalog.retire(0)
    assert (await harness.get("/api/v1/dags"))["items"] == []
    lost = await emitted(harness)
    await catalog.save([loaded(dag("d", task("a"), on="x"))])
    assert await reason_of(harness, lost) == (
        "unseen",
        "not processed: no DAG file defined the DAG at that time",
    )


async def emitted(harness):
    (event_id,) = (await harness.post("/api/v1/datasets/events", {"dataset": "x://x"}))["ids"]
    return event_id


async def reason_of(harness, event_id):
    (event,) = (await harness.get("/api/v1/datasets/events", params={"event": event_id}))["items"]
    (outcome,) = event["fates"]
    return outcome["fate"], outcome["reason"]
