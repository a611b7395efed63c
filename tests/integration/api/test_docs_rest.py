"""The examples of docs/rest.md work, and what it says of errors is what routes declare."""

import itertools
import json
import re
import shlex
from pathlib import Path

import anyio
import pytest

from pubsubflow.cli.main import make_app
from support.specs import dag, task

pytestmark = pytest.mark.anyio
PAGE = (Path(__file__).parents[3] / "docs" / "rest.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def requests_of(block):
    """Yield method, path, headers and body of each curl command."""
    for line in block.splitlines():
        words = shlex.split(line)
        options = dict(itertools.pairwise(words))
        (url,) = (word for word in words if word.startswith("http://"))
        headers = dict([options["-H"].split(": ", 1)]) if "-H" in options else {}
        path = url.removeprefix("http://127.0.0.1:8080")
        yield options.get("-X", "GET"), path, headers, options.get("-d")


async def test_the_commands_of_the_page_are_answered(harness):
    await harness.load(dag("build_report", task("write"), params={"day": ""}))
    first, second, *_ = [block for block in blocks("sh") if block.startswith("curl")]
    for method, path, headers, body in requests_of(first):
        status = 201 if method == "POST" else 200
        assert await harness.request(method, path, status=status, headers=headers, data=body)
    revision = (await harness.get("/api/v1/dags/build_report"))["revision"]
    ((method, path, headers, body),) = requests_of(second)
    for status in (200, 412):
        reply = {name: text.replace("REVISION", revision) for name, text in headers.items()}
        await harness.request(method, path, status=status, headers=reply, data=body)


async def test_the_problem_of_the_page_is_what_the_server_answers(harness):
    events = [{"dataset": "s3://a/b"}, {"dataset": 1}]
    reply = await harness.post("/api/v1/datasets/events", events, status=422)
    (shown,) = blocks("json")
    assert json.loads(shown) == reply


async def test_the_client_of_the_page_works(harness):
    await harness.load(dag("build_report", task("write"), params={"day": ""}))
    names = {}
    (code,) = blocks("python")
    exec(compile(code, "rest.md", "exec"), names)
    await harness.post("/api/v1/datasets/events", {"dataset": "s3://a/b"})
    found = []

    async def report():
        found.extend(await names["report"](harness.url))

    async with anyio.create_task_group() as group:
        group.start_soon(report)
        listed = await harness.get_until("/api/v1/runs", lambda page: page["items"])
        run_id = listed["items"][0]["run_id"]
        await harness.write(run_id, 0, 0, "written")
        await harness.finish(run_id, 0)
    assert len(found) == 1
    assert (await harness.get("/api/v1/dags/build_report"))["paused"]


def test_the_commands_for_a_daemon_elsewhere_can_be_read():
    (block,) = [block for block in blocks("sh") if "export" in block]
    _, *commands = block.splitlines()
    for command in commands:
        make_app().parse_args(command.split()[1:], print_error=False, exit_on_error=False)
