"""Managers give connections to tasks that run, and to nobody else."""

import pytest
from core_rig import running
from dag_specs import dag, task

from pubsubflow.model.connections import make_connection
from pubsubflow.model.wire.commands import StartRun
from pubsubflow.model.wire.messages import encode
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.model.wire.worker_requests import (
    LOST,
    REFUSED,
    AskConnection,
    Piece,
    decode_connection,
    decode_piece,
)
from pubsubflow.store.secrets.connections import Connections
from pubsubflow.store.secrets.keyring import KeyFile

pytestmark = pytest.mark.anyio

CRM = make_connection("crm", uri="https://crm/", secrets={"token": "hush-hush"})


@pytest.fixture
async def connections(database, tmp_path):
    found = Connections(database, KeyFile(tmp_path / "keys"))
    await found.save(CRM)
    return found


@pytest.fixture
async def rig(database, bus, nats, connections):
    async with running(database, bus, nats, connections=connections) as rig:
        yield rig


@pytest.fixture
async def order(rig):
    await rig.load(dag("d", task("a"), task("b", "a")))
    await rig.call(StartRun("d"))
    return await rig.order("a")


async def ask(rig, order, name="crm", **other):
    message = order.message
    place = {"run": message.run, "node": message.node, "map_index": message.map_index}
    fence = {"attempt": message.attempt, "delivery": message.delivery}
    question = AskConnection(**(place | fence | other), name=name)
    return decode_piece(await rig.bus.request(Subjects.ASK, encode(question), 5))


async def test_a_task_that_runs_is_given_what_is_stored_now(rig, order, connections):
    assert decode_connection((await ask(rig, order)).data) == CRM
    await connections.save(make_connection("crm", secrets={"token": "another"}))
    assert decode_connection((await ask(rig, order)).data).secrets == {"token": "another"}


@pytest.mark.parametrize("other", [{"attempt": 2}, {"delivery": 2}, {"run": 999_999}])
async def test_another_fence_is_given_nothing(rig, order, other):
    piece = await ask(rig, order, **other)
    assert (piece.data, piece.error.startswith(LOST)) == (b"", True)


async def test_a_task_that_has_ended_is_given_nothing(rig, order):
    await rig.report(order.result())
    assert (await ask(rig, order)).error.startswith(LOST)


async def test_a_task_whose_row_is_to_come_is_told_to_ask_again(rig, order):
    assert await ask(rig, order, node=1) == Piece(b"", 0)


async def test_what_is_not_there_and_what_cannot_be_decrypted_is_refused(rig, order, connections):
    piece = await ask(rig, order, "nobody")
    assert piece.error == f"{REFUSED}no connection named 'nobody'"
    connections._keys.path.unlink()
    piece = await ask(rig, order)
    assert piece.error.startswith(f"{REFUSED}connection 'crm' is encrypted with key")
