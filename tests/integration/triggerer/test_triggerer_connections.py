"""Connections of triggers: what they log and how they fail shows no secret."""

import pytest
from msgspec.structs import replace

from pubsubflow.model.connections import make_connection
from pubsubflow.store.secrets.connections import Connections
from pubsubflow.store.secrets.keyring import Keyring

pytestmark = pytest.mark.anyio

DB = make_connection("db", uri="postgres://ann@db/sales", secrets={"password": "hush-hush"})


@pytest.fixture
async def connections(database, tmp_path):
    found = Connections(database, Keyring(tmp_path / "keys"))
    await found.save(DB)
    return found


async def test_a_trigger_gets_a_connection_as_it_is_now(
    harness, source, run_triggerer, facts, connections
):
    await run_triggerer(connections=connections)
    number = await harness.add(label="a")
    await source.reported("a", "started")
    await source.send("a", "connection", name="db")
    assert (await source.reported("a", "done"))["result"] == {"password": "hush-hush"}
    await connections.save(make_connection("db", uri=DB.uri, secrets={"password": "other-one"}))
    await source.send("a", "connection", name="db")
    assert (await source.reported("a", "done", times=2))["result"] == {"password": "other-one"}
    await source.send("a", "connection", name="db", fail=True)
    error = (await harness.until_fired(number)).error
    assert error.message == "it does not like ***"
    assert "other-one" not in error.traceback
    logged = [each for each in facts if each["event"] == "remote.connected"]
    assert [(each["password"], each["url"]) for each in logged] == [
        ("***", "postgres://ann:***@db/sales")
    ] * 3


async def test_why_there_is_no_connection_is_what_the_trigger_fails_with(
    harness, source, run_triggerer, connections
):
    await run_triggerer(connections=connections)
    number = await harness.add(label="a")
    await source.reported("a", "started")
    await source.send("a", "connection", name="nobody")
    assert (await harness.until_fired(number)).error.message == "no connection named 'nobody'"


async def test_a_triggerer_without_connections_says_so(harness, source, run_triggerer):
    await run_triggerer()
    number = await harness.add(label="a")
    await source.reported("a", "started")
    await source.send("a", "connection", name="db")
    assert (
        await harness.until_fired(number)
    ).error.message == "this triggerer knows no connections"


RUN = """
WITH made AS (INSERT INTO dag (dag_id, file) VALUES ($1, $1) RETURNING id)
INSERT INTO run (id, run_id, dag, version, run_key, kind, state, params, cause)
SELECT $2, gen_random_uuid(), id, 0, '', 'manual', 'running', '{}', '' FROM made
RETURNING id
"""


async def test_a_connection_for_some_dags_goes_to_triggers_of_their_tasks(
    harness, source, run_triggerer, connections
):
    await connections.save(replace(DB, dags=("etl*",)))
    await run_triggerer(connections=connections)
    runs = [await harness.value(RUN, name, number) for number, name in ((1, "etl"), (2, "report"))]
    # They share a key, but no poll: it may use a connection that is for one of them.
    allowed, refused = [
        await harness.add(label=label, run=run, share="equal")
        for label, run in zip("ab", runs, strict=True)
    ]
    watch = await harness.add(kind="watch", label="w")
    for label in "abw":
        await source.reported(label, "started")
        await source.send(label, "connection", name="db")
    assert (await source.reported("a", "done"))["result"] == {"password": "hush-hush"}
    error = (await harness.until_fired(refused)).error
    assert error.message.startswith("connection 'db' is for DAGs etl*; this is 'report'")
    query = "SELECT error FROM trigger WHERE id = $1"
    assert allowed != watch
    await source.reported("w", "started", times=2)
    assert "a watched dataset belongs to no DAG" in await harness.value(query, watch)
