"""What assistants may do is decided by the token: of the command, or over HTTP of each request."""

import json
import re
from contextlib import asynccontextmanager, nullcontext

import anyio
import httpx2
import mcp
import pytest
from mcp.client.streamable_http import streamable_http_client

from pubsubflow.cli.mcp.http import serve_http
from pubsubflow.cli.mcp.operations import operations
from pubsubflow.cli.mcp.server import make_server
from pubsubflow.cli.target import Target
from pubsubflow.client import Client
from pubsubflow.model.auth import Role
from pubsubflow.store.auth import TokenStore
from support.api import ApiHarness
from support.specs import dag, task

pytestmark = pytest.mark.anyio
START = ("post_dags_by_dag_id_runs", {"dag_id": "d", "body": {}})


@pytest.fixture
async def guarded(serve, database, bus):
    """A server with a DAG and tokens of two roles."""
    store = TokenStore(database)
    tokens = {
        role: (await store.create(f"the-{role}", role, by="test")).token
        for role in (Role.VIEWER, Role.OPERATOR)
    }
    async with serve() as (api, _):
        harness = ApiHarness(api.url, None, bus, database)
        await harness.load(dag("d", task("work")))
        harness.tokens = tokens
        yield harness


async def tools_of(url, token, *, writes):
    async with Client(url, token=token) as client:
        document = json.loads(await client.request("GET", "/api/v1/openapi.json"))
    return operations(document, writes=writes)


async def check(client, *, allowed):
    """Read with a client, then try to start a run."""
    read = await client.call_tool("get_dags_by_dag_id", {"dag_id": "d"})
    assert json.loads(read.content[0].text)["dag_id"] == "d"
    done = await client.call_tool(*START)
    assert done.is_error != allowed, done
    if allowed:
        assert json.loads(done.content[0].text)["run_id"]
    else:
        assert "viewer" in done.content[0].text


@asynccontextmanager
async def over_http(url, token):
    """Give a client of the tools at a URL."""
    http = httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"})
    async with http, mcp.Client(streamable_http_client(url, http_client=http)) as client:
        yield client


async def test_a_role_limits_what_allow_writes_offers(guarded):
    for role, allowed in [(Role.VIEWER, False), (Role.OPERATOR, True)]:
        tools = await tools_of(guarded.url, guarded.tokens[role], writes=True)
        async with Client(guarded.url, token=guarded.tokens[role]) as ours:
            server = make_server(lambda _context, ours=ours: nullcontext(ours), tools)
            async with mcp.Client(server) as client:
                await check(client, allowed=allowed)


async def test_over_http_each_request_has_the_rights_of_its_own_token(guarded, capfd):
    tokens = guarded.tokens
    # The command's own token is the stronger one, and counts for nothing.
    target = Target(server=guarded.url, token=tokens[Role.OPERATOR])
    tools = await tools_of(guarded.url, tokens[Role.OPERATOR], writes=True)
    async with anyio.create_task_group() as group:
        group.start_soon(serve_http, target, tools, 0)
        while not (found := re.search(r"http://127.0.0.1:\d+/mcp", capfd.readouterr().err)):
            await anyio.lowlevel.checkpoint()
        async with httpx2.AsyncClient() as nobody:
            refused = await nobody.post(found[0], json={})
            assert (refused.status_code, "Authorization" in refused.text) == (401, True)
            bearer = {"Authorization": f"Bearer {tokens[Role.VIEWER]}"}
            elsewhere = {**bearer, "Host": "evil.example", "Content-Type": "application/json"}
            assert (await nobody.post(found[0], json={}, headers=elsewhere)).status_code == 421
        for role, allowed in [(Role.VIEWER, False), (Role.OPERATOR, True)]:
            async with over_http(found[0], tokens[role]) as client:
                await check(client, allowed=allowed)
        group.cancel_scope.cancel()
