"""Tools over the API of a real daemon, called by the SDK's client."""

import json
import sys

import mcp
import pytest

from pubsubflow.cli.mcp.operations import operations

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


def tools_of(home, *flags):
    """Return a client of `pubsubflow mcp`, which it starts."""
    arguments = ["-m", "pubsubflow.cli.main", "mcp", "--home", str(home), *flags]
    return mcp.Client(mcp.StdioServerParameters(command=sys.executable, args=arguments))


async def test_an_assistant_reads_and_changes_nothing(daemon_url, daemon_home):
    async with tools_of(daemon_home) as client:
        listed = (await client.list_tools()).tools
        names = {tool.name for tool in listed}
        assert {"get_dags", "get_runs", "get_runs_by_run_id_explain"} <= names
        assert all(tool.annotations.read_only_hint for tool in listed)
        assert not any(name.startswith(("post_", "put_", "delete_", "patch_")) for name in names)
        found = await client.call_tool("get_dags_by_dag_id", {"dag_id": "first"})
        assert json.loads(found.content[0].text)["dag_id"] == "first"
        for name, arguments, says in [
            ("get_dags_by_dag_id", {"dag_id": "none"}, "none"),
            ("get_dags_by_dag_id", {}, "dag_id"),
            ("get_runs", {"colour": "red"}, "colour"),
            ("post_dags_by_dag_id_runs", {"dag_id": "first", "body": {}}, "--allow-writes"),
        ]:
            refused = await client.call_tool(name, arguments)
            assert (refused.is_error, says in refused.content[0].text) == (True, True), name


async def test_an_assistant_starts_a_run_if_it_may(daemon_url, daemon_home):
    async with tools_of(daemon_home, "--allow-writes") as client:
        body = {"dag_id": "first", "body": {"params": {"times": 1}}}
        started = await client.call_tool("post_dags_by_dag_id_runs", body)
        run = json.loads(started.content[0].text)["run_id"]
        ended = await client.call_tool("get_runs_by_run_id_wait", {"run_id": run, "timeout": "30"})
        assert json.loads(ended.content[0].text)["state"] == "success"


def test_schemas_hold_what_they_refer_to():
    reference = {"$ref": "#/components/schemas/A"}
    item = {
        "operationId": "post_x",
        "parameters": [
            {"name": "x", "in": "path", "required": True, "schema": {"type": "string"}},
            {"name": "If-Match", "in": "header"},
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": reference}}},
    }
    schemas = {"A": {"properties": {"next": reference, "b": {"$ref": "#/components/schemas/B"}}}}
    document = {
        "paths": {"/x/{x}": {"post": item, "get": {"operationId": "get_stream"}}},
        "components": {"schemas": {**schemas, "B": {"type": "null"}, "C": {}}},
    }
    assert operations(document, writes=False) == {}
    (made,) = operations(document, writes=True).values()
    assert made.schema["required"] == ["x", "body"]
    assert made.schema["$defs"].keys() == {"A", "B"}
    assert made.schema["$defs"]["A"]["properties"]["next"] == {"$ref": "#/$defs/A"}
    assert made.url({"x": "a/b"}) == "/x/a%2Fb"
