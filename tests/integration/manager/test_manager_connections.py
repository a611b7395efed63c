"""Connections: managers give them to tasks that run, and to no other."""

import pytest

from pubsubflow.model.connections import make_connection
from pubsubflow.model.wire.commands import StartRun
from pubsubflow.model.wire.messages import encode
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.model.wire.worker_requests import (
    LEASE_LOST,
    REFUSED,
    Chunk,
    ConnectionRequest,
    decode_chunk,
    decode_connection,
)
from pubsubflow.store.secrets.connections import Connections
from pubsubflow.store.secrets.keyring import Keyring
from support.harness import running_managers
from support.specs import dag, task

pytestmark = pytest.mark.anyio

CRM = make_connection("crm", uri="https://crm/", secrets={"token": "hush-hush"})


@pytest.fixture
async def connections(database, tmp_path):
    found = Connections(database, Keyring(tmp_path / "keys"))
    await found.save(CRM)
    return found


@pytest.fixture
async def harness(database, bus, nats, connections):
    async with running_managers(database, bus, nats, connections=connections) as harness:
        yield harness


@pytest.fixture
async def order(harness):
    await harness.load(dag("d", task("a"), task("b", "a")))
    await harness.call(StartRun("d"))
    return await harness.order("a")


async def request_connection(harness, order, name="crm", **other):
    message = order.message
    place = {"run": message.run, "node": message.node, "map_index": message.map_index}
    fence = {"attempt": message.attempt, "delivery": message.delivery}
    question = ConnectionRequest(**(place | fence | other), name=name)
    return decode_chunk(await harness.bus.request(Subjects.WORKER_REQUEST, encode(question), 5))


async def test_a_task_that_runs_is_given_what_is_stored_now(harness, order, connections):
    assert decode_connection((await request_connection(harness, order)).data) == CRM
    await connections.save(make_connection("crm", secrets={"token": "another"}))
    assert decode_connection((await request_connection(harness, order)).data).secrets == {
        "token": "another"
    }


@pytest.mark.parametrize("other", [{"attempt": 2}, {"delivery": 2}, {"run": 999_999}])
async def test_another_fence_is_given_nothing(harness, order, other):
    piece = await request_connection(harness, order, **other)
    assert (piece.data, piece.error.startswith(LEASE_LOST)) == (b"", True)


async def test_a_task_that_has_ended_is_given_nothing(harness, order):
    await harness.report(order.result())
    assert (await request_connection(harness, order)).error.startswith(LEASE_LOST)


async def test_a_task_whose_row_is_to_come_repeats_its_request(harness, order):
    assert await request_connection(harness, order, node=1) == Chunk(b"", 0)


async def test_what_is_not_there_and_what_cannot_be_decrypted_is_refused(
    harness, order, connections
):
    piece = await request_connection(harness, order, "nobody")
    assert piece.error == f"{REFUSED}no connection named 'nobody'"
    connections._keys.path.unlink()
    piece = await request_connection(harness, order)
    assert piece.error.startswith(f"{REFUSED}connection 'crm' is encrypted with key")


async def test_a_connection_is_given_to_the_dags_alone_that_it_is_for(harness, order, connections):
    await connections.save(make_connection("crm", secrets={"token": "x"}, dags=["other", "e*"]))
    piece = await request_connection(harness, order)
    assert piece.data == b""
    assert piece.error.startswith(f"{REFUSED}connection 'crm' is for DAGs e*, other; this is 'd'")
    await connections.save(make_connection("crm", secrets={"token": "x"}, dags=["d*"]))
    assert decode_connection((await request_connection(harness, order)).data).dags == ("d*",)
