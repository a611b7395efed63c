"""Files of the result store go when no run refers to them any more."""

import pytest
from msgspec.structs import replace

from pubsubflow.model.wire.commands import StartRun
from pubsubflow.model.wire.outputs import encode_outputs
from pubsubflow.model.wire.stored_results import StoredResult, encode_stored, stored_part
from pubsubflow.object_store import FileStore
from pubsubflow.retention import Pruner, RetentionSettings, summed
from support.specs import dag, task

pytestmark = pytest.mark.anyio


async def test_files_are_kept_for_what_refers_to_them_alone(kept, tmp_path):
    harness = kept.harness
    store = FileStore(f"file://{tmp_path}", setting="results.store")
    await harness.load(dag("d", task("a", kind="sync")))
    harness.automatic = None
    ended, runs = await harness.call(StartRun("d")), await harness.call(StartRun("d"))
    first, second = [await harness.run_number(run) for run in (ended, runs)]
    files = {
        "referred to": StoredResult(first, 0, -1, 1, 1, 5),
        "pushed": stored_part((first, 0, -1, 1, 1), 1, 5),
        "lost attempt": StoredResult(first, 0, -1, 1, 2, 5),
        "of a run that runs": StoredResult(second, 0, -1, 1, 1, 5),
        "of no run": StoredResult(second + 5000, 0, -1, 1, 1, 5),
    }
    for stored in files.values():
        await store.write(stored.name, b"12345")
    await store.write("notes.txt", b"of another")
    order = await harness.order("a", run=first)
    order.delivery.ack()
    pushed = encode_outputs({"key": encode_stored(files["pushed"])}, {})
    result = replace(order.result(), value=encode_stored(files["referred to"]), outputs=pushed)
    await harness.report(result)
    await harness.until_states("success", "running")

    async def left(**settings):
        pruner = Pruner(harness.database, RetentionSettings(**settings), result_store=store)
        done = await pruner.prune()
        names = set(await store.list())
        return done, {key for key, stored in files.items() if stored.name in names}

    dry = await Pruner(harness.database, RetentionSettings(), result_store=store).prune(
        dry_run=True
    )
    found = {each.table: (each.rows, each.bytes) for each in summed(dry)}
    assert found == {"result store, files": (2, 10)}
    _, names = await left()
    assert names == {"referred to", "pushed", "of a run that runs"}
    await kept.age(6)
    await left()
    await kept.age(10)
    _, names = await left(results_days=8)
    assert names == {"of a run that runs"}
    assert "notes.txt" in await store.list()
    # Another database must not take these for its own.
    await harness.rows("UPDATE connection_vault SET id = gen_random_uuid()")
    await harness.rows("DELETE FROM run_live")
    await harness.rows("DELETE FROM run WHERE id = $1", second)
    _, names = await left()
    assert names == {"of a run that runs"}
