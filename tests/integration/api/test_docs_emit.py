"""The examples of docs/emit.md work: curl and Go are run, the commands of `nats` are read.

Where the machine has no `go`, the program is not run; the tool `nats` is never asked for: what its
commands would publish is published by nats-py.
"""

import itertools
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import nats as nats_py
import pytest
from anyio import to_thread

pytestmark = pytest.mark.anyio

PAGE = (Path(__file__).parents[3] / "docs" / "emit.md").read_text()
SERVER = "http://127.0.0.1:8080"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


async def run(command):
    """Run a program; return what it writes."""
    done = await to_thread.run_sync(
        lambda: subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


async def newest(harness):
    return (await harness.get("/api/v1/datasets/events?limit=1"))["items"][0]


@pytest.mark.skipif(shutil.which("curl") is None, reason="this machine has no curl")
async def test_the_commands_with_curl_make_events(harness):
    commands = [block for block in blocks("sh") if block.startswith("curl")]
    assert len(commands) == 2
    ids = set()
    for command in commands:
        words = shlex.split(command.replace("\\\n", " ").replace(SERVER, harness.url))
        first = json.loads(await run(words))
        assert json.loads(await run(words))["ids"] == first["ids"]
        ids.update(first["ids"])
        event = await newest(harness)
        assert (event["dataset"], event["partition"]) == ("s3://lake/orders", "2026-11-20")
        assert event["extra"]["rows"] == 42
    assert len(ids) == 2


@pytest.mark.skipif(shutil.which("go") is None, reason="this machine has no go")
async def test_the_program_in_go_makes_an_event(harness, tmp_path):
    (program,) = blocks("go")
    (tmp_path / "emit.go").write_text(program)
    command = next(block for block in blocks("sh") if block.startswith("go run"))
    words = shlex.split(
        command.replace(SERVER, harness.url).replace("emit.go", f"{tmp_path}/emit.go")
    )
    written = await run(words)
    event = await newest(harness)
    assert event["event_id"] == written.strip()
    assert (event["dataset"], event["extra"]) == ("s3://lake/orders", {"rows": 42})


async def test_the_function_with_nats_py_makes_an_event(harness, nats):
    (function,) = blocks("python")
    names = {}
    exec(compile(function, "emit.md", "exec"), names)
    for _ in range(2):
        await names["emit"](
            nats.url, "s3://lake/orders", {"rows": 42}, id="n1", partition="p", token=nats.token
        )
    found = await harness.get_until("/api/v1/datasets/events", lambda page: page["items"])
    (event,) = found["items"]
    assert (event["dataset"], event["partition"], event["source"]) == (
        "s3://lake/orders", "p", "bus",
    )  # fmt: skip
    assert event["extra"]["rows"] == 42


async def test_the_commands_of_nats_make_events(harness, nats):
    commands = [shlex.split(block) for block in blocks("sh") if block.startswith("nats")]
    assert len(commands) == 2
    connection = await nats_py.connect(nats.url, token=nats.token)
    for words in commands:
        assert words[:4] == ["nats", "pub", "--jetstream", "psf.in.event.0"]
        headers = dict(
            word.split(":", 1) for option, word in itertools.pairwise(words) if option == "-H"
        )
        await connection.jetstream().publish(words[3], words[4].encode(), headers=headers or None)
    await connection.close()
    found = await harness.get_until("/api/v1/datasets/events", lambda page: len(page["items"]) == 2)
    assert {event["extra"]["rows"] for event in found["items"]} == {43, 44}
