"""Large results: stored before they are published, and read for the tasks that take them."""

import msgspec
import pytest

from pubsubflow.model.wire.messages import NO_NODE, NOT_MAPPED, Outcome
from pubsubflow.model.wire.stored_results import StoredResult, decode_stored, encode_stored
from pubsubflow.object_store import FileStore
from pubsubflow.worker import ResultStore, ResultStoreSettings

pytestmark = pytest.mark.anyio
SETTINGS = ResultStoreSettings(store="file:///there", inline_bytes=100, max_bytes=2_000_000)

LARGE = """
from pubsubflow import dag, task

@dag
def large():
    @task
    async def make() -> str:
        return "x" * 1_500_000

    @task
    async def measure(text: str) -> int:
        return len(text)

    @task
    def too_much() -> str:
        return "x" * 2_000_000

    measure(make())
    too_much()
"""


async def test_a_large_result_is_stored_and_read_where_it_is_needed(
    manager, start_worker, tmp_path
):
    store = FileStore(f"file://{tmp_path}/results", setting="results.store")
    dag = manager.load(LARGE)
    async with start_worker(results=(ResultStore(store, 5.0), SETTINGS)):
        order = await manager.send(manager.order(dag, "make", chained=True))
        result = await manager.result(order)
        assert (result.outcome, result.then) == (Outcome.SUCCESS, NO_NODE), "it ends the chain"
        stored = decode_stored(result.value)
        assert stored == StoredResult(order.run, order.node, NOT_MAPPED, 1, 1, 1_500_005)
        assert msgspec.msgpack.decode(await store.read(stored.name)) == "x" * 1_500_000
        following = manager.order(dag, "measure")
        inputs = {dag.node("make"): msgspec.Raw(encode_stored(stored))}
        following = msgspec.structs.replace(following, inputs=inputs)
        found = await manager.result(await manager.send(following))
        assert manager.decoded(found) == 1_500_000
        failed = await manager.run(dag, "too_much")
        assert failed.outcome == Outcome.FAILED
        assert "2,000,005 bytes and 2,000,000 fit" in failed.error.message
    # Another worker reads it from the store; one without a store says what is missing.
    async with start_worker("w2", results=(ResultStore(store, 5.0), SETTINGS)):
        again = msgspec.structs.replace(manager.order(dag, "measure"), inputs=inputs)
        found = await manager.result(await manager.send(again))
        assert manager.decoded(found) == 1_500_000
    async with start_worker("w3"):
        without = msgspec.structs.replace(manager.order(dag, "measure"), inputs=inputs)
        failed = await manager.result(await manager.send(without))
        assert "this worker has none: set [results] store" in failed.error.message


async def test_a_store_that_stays_away_fails_the_attempt(manager, start_worker, tmp_path):
    (tmp_path / "file").write_text("in the way of the folder")
    store = FileStore(f"file://{tmp_path}/file/results", setting="results.store")
    results = ResultStore(store, 0.3)
    async with start_worker(results=(results, SETTINGS)):
        result = await manager.run(manager.load(LARGE), "make")
    assert (result.outcome, result.error.type) == (Outcome.FAILED, "ResultStoreUnavailable")
    assert not result.error.final, "a retry may find it back"
    assert "was not stored within 0.3 s" in result.error.message
    assert not results.available
