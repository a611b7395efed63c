"""Connections of tasks: what they write and how they fail shows no secret."""

import pytest

from pubsubflow.model.connections import make_connection
from pubsubflow.model.wire.messages import Outcome, encode
from pubsubflow.model.wire.worker_requests import LEASE_LOST, REFUSED, Chunk, ConnectionRequest

pytestmark = pytest.mark.anyio

SECRET = 'hush "h/ush"'
PEM = "-----BEGIN KEY-----\nMIIhush\nMIJhush\n-----END KEY-----"
WAREHOUSE = make_connection(
    "warehouse",
    uri="postgres://ann@db/sales",
    secrets={"password": SECRET, "key": PEM, "pin": "4711", "short": "a"},
)
TEXT = """
import subprocess
import sys
from pubsubflow import Context, dag, task

def write(ctx, here):
    print("before", here)
    found = ctx.connection("warehouse")
    print(f"it is {found.password}!")
    print(found.secrets["key"])
    print(found.url, found, file=sys.stderr)
    ctx.log.info("logged " + found.password, pin=4711, deep={"x": [found.password, 14711.5]})
    if here == "sync":
        subprocess.run(["echo", "from outside: " + found.password], check=True)
    return found

def fail(ctx):
    found = ctx.connection("warehouse")
    try:
        raise ValueError(found.password)
    except ValueError as error:
        raise RuntimeError("cannot log in with " + found.password) from error

@dag
def d():
    @task
    def sync(ctx: Context):
        return write(ctx, "sync").url == "postgres://ann:hush%20%22h%2Fush%22@db/sales"

    @task
    async def asynchronous(ctx: Context):
        return write(ctx, "async").url == "postgres://ann:hush%20%22h%2Fush%22@db/sales"

    @task
    def sync_fails(ctx: Context):
        fail(ctx)

    @task
    async def async_fails(ctx: Context):
        fail(ctx)

    @task
    def first():
        return 1

    @task
    def then(value, ctx: Context):
        return ctx.connection("warehouse").user

    sync(); asynchronous(); sync_fails(); async_fails(); then(first())
"""


def given(times=1):
    return [Chunk(encode(WAREHOUSE), 1)] * times


@pytest.mark.parametrize("name", ["sync", "asynchronous"])
async def test_a_task_gets_a_connection_and_its_log_shows_no_secret(manager, worker, name):
    manager.connections["warehouse"] = given()
    order = await manager.send(manager.order(manager.load(TEXT), name))
    result = await manager.result(order)
    assert (result.outcome, result.value) == (Outcome.SUCCESS, b"\xc3")
    (request,) = [each for each in manager.requests if isinstance(each, ConnectionRequest)]
    assert request == ConnectionRequest(order.run, order.node, -1, 1, 1, "warehouse")
    await manager.until(lambda: any("logged" in text for text in manager.texts(order)))
    output = str(manager.lines(order))
    assert "hush" not in output
    assert "4711" not in output
    texts = manager.texts(order)
    assert {"it is ***!", "logged ***"} <= set(texts)
    assert any(text.startswith("postgres://ann:***@db") for text in texts)
    record = next(line for line in manager.lines(order) if line["m"] == "logged ***")
    assert (record["pin"], record["deep"]) == ("***", {"x": ["***", "***"]})
    if name == "sync":
        assert "from outside: ***" in texts


@pytest.mark.parametrize("name", ["sync_fails", "async_fails"])
async def test_how_a_task_failed_shows_no_secret(manager, worker, name):
    manager.connections["warehouse"] = given()
    result = await manager.run(manager.load(TEXT), name)
    assert result.error.message == "cannot log in with ***"
    assert "ValueError: ***" in result.error.traceback
    assert "hush" not in str(result)


@pytest.mark.parametrize("name", ["sync", "asynchronous"])
async def test_why_there_is_no_connection_is_what_the_task_fails_with(manager, worker, name):
    dag = manager.load(TEXT)
    manager.connections["warehouse"] = [Chunk(b"", 0, f"{REFUSED}no connection named 'warehouse'")]
    result = await manager.run(dag, name)
    assert (result.error.type, result.error.message) == (
        "ConfigError",
        "no connection named 'warehouse': set it with `pubsubflow connections set warehouse`",
    )
    manager.connections["warehouse"] = [Chunk(b"", 0, f"{LEASE_LOST}the run has ended")]
    result = await manager.run(dag, name)
    assert (result.error.type, result.error.message) == ("LeaseLost", "the run has ended")


async def test_a_task_in_a_chain_repeats_its_request_until_its_row_is_there(manager, worker):
    manager.connections["warehouse"] = [Chunk(b"", 0), Chunk(b"", 0), *given()]
    dag = manager.load(TEXT)
    order = await manager.send(manager.order(dag, "first", chained=True))
    result = await manager.result(order, dag.node("then"))
    assert result.value == b"\xa3ann"
    assert manager.connections["warehouse"] == []


ENVIRONMENT = """
import os
from pubsubflow import dag, task

@dag
def d():
    @task
    def look():
        return sorted(name for name in os.environ if name.startswith("PUBSUBFLOW"))

    look()
"""


@pytest.fixture
def passwords(monkeypatch):
    for name in ("__NATS__TOKEN", "__POSTGRES__PASSWORD", "_TOKEN", "_SECRET_STRIPE"):
        monkeypatch.setenv(f"PUBSUBFLOW{name}", "x")


async def test_the_daemons_secrets_are_not_in_a_tasks_environment(passwords, manager, worker):
    result = await manager.run(manager.load(ENVIRONMENT), "look")
    assert result.value == b"\x90"  # an empty list
