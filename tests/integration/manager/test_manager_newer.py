"""Definitions that only a newer version can read, in a database that both versions share."""

import msgspec
import pytest

from pubsubflow.errors import NewerFormat
from pubsubflow.model.schedule.timetable import IntervalSpec
from pubsubflow.model.wire.commands import FireTimers
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.store.read.timers import Timers
from support.specs import dag, task

pytestmark = pytest.mark.anyio
NEWER_KIND = "the definition of a DAG"


async def make_newer(harness, dag_id):
    """Give a DAG a schedule of a kind that this version does not know; return its own."""
    find = (
        "SELECT version.id, spec FROM dag_version AS version JOIN dag ON dag.id = version.dag"
        " WHERE dag_id = $1"
    )
    ((number, spec),) = await harness.rows(find, dag_id)
    plain = msgspec.msgpack.decode(spec)
    plain["schedule"]["condition"]["type"] = "oracle"
    await write_spec(harness, number, msgspec.msgpack.encode(plain))
    return number, spec


async def write_spec(harness, number, spec):
    await harness.rows("UPDATE dag_version SET spec = $2 WHERE id = $1", number, spec)


async def test_what_only_a_newer_version_can_read_is_left_to_it(harness):
    """It is no dead letter, holds up nothing else, and is done once a manager can read it."""
    await harness.load(dag("newer", task("a"), on="x"), dag("known", task("b"), on="y"))
    number, spec = await make_newer(harness, "newer")
    with pytest.raises(NewerFormat, match=NEWER_KIND):
        await harness.post("x1")
    event = {"specversion": "1.0", "id": "1", "source": "s", "type": "t", "subject": "x://x"}
    await harness.worker_bus.publish_durable(f"{Subjects.EVENT}.0", msgspec.json.encode(event))
    await harness.post("y1")
    await harness.finish("b")
    await harness.until_states("success")
    left = harness.managers[0]._bus.left_to_newer
    await harness.until(lambda: len(left) > 2)
    assert await harness.value("SELECT count(*) FROM dead_letter") == 0
    assert await harness.value("SELECT count(*) FROM event") == 1
    await write_spec(harness, number, spec)
    await harness.finish("a")
    await harness.until_states("success", "success")


async def test_a_timer_that_only_a_newer_version_can_fire_stays_due(harness):
    """Those beside it fire, and it does once a manager can read its DAG."""
    every = IntervalSpec(3600)
    await harness.load(*(dag(name, task("a"), timetable=every) for name in ("newer", "known")))
    number, spec = await make_newer(harness, "newer")
    await harness.rows("UPDATE timer SET due_at = now() - interval '1 second'")
    timers = tuple(await Timers(harness.database).upcoming())
    assert len(timers) == 2
    with pytest.raises(NewerFormat, match=NEWER_KIND):
        await harness.call(FireTimers(timers))
    await harness.finish("a")
    await harness.until_states("success", dag_id="known")
    assert await harness.states("newer") == []
    await write_spec(harness, number, spec)
    await harness.call(FireTimers(timers))
    await harness.finish("a")
    await harness.until_states("success", dag_id="newer")
