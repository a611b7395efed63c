"""What docs/live.md says is so."""

import re
import shlex
import tomllib
from pathlib import Path

import anyio
import msgspec
import pytest

from pubsubflow.api.stream.settings import StreamSettings
from pubsubflow.client.stream import EventStreamParser
from pubsubflow.model.changes import (
    CheckChanged,
    DagChanged,
    DatasetUpdated,
    ImportChanged,
    RunChanged,
    StreamReset,
    TaskChanged,
)
from support.specs import dag, task
from support.stream_reader import Reader

pytestmark = pytest.mark.anyio

PAGE = (Path(__file__).parents[3] / "docs" / "live.md").read_text()
KINDS = {
    "run": RunChanged,
    "task": TaskChanged,
    "dataset": DatasetUpdated,
    "dag": DagChanged,
    "import": ImportChanged,
    "check": CheckChanged,
    "reset": StreamReset,
}


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def curl_arguments(command, url, **places):
    """Return address and headers of a call of curl."""
    name, quiet, *rest = shlex.split(command)
    assert (name, quiet) == ("curl", "-N")
    address = rest.pop().replace("http://127.0.0.1:8080", url).format_map(places)
    assert rest[::2] == ["-H"] * (len(rest) // 2)
    return address, dict(header.split(": ") for header in rest[1::2])


def test_the_table_names_all_fields():
    rows = re.findall(r"^\| `(\w+)` \|.*\| (.*) \|$", PAGE, re.MULTILINE)
    assert {kind: re.findall(r"`(\w+)`", fields) for kind, fields in rows} == {
        kind: list(struct.__struct_fields__) for kind, struct in KINDS.items()
    }


def test_the_example_is_as_messages_are():
    (example,) = blocks("text")
    found = EventStreamParser().feed(example.encode() + b"\n")
    assert [message.event for message in found] == ["run", "task"]
    for message in found:
        assert list(msgspec.json.decode(message.data)) == list(
            KINDS[message.event].__struct_fields__
        )
        message.change()


def test_the_settings_are_the_defaults():
    (settings,) = blocks("toml")
    assert msgspec.convert(tomllib.loads(settings)["live"], StreamSettings) == StreamSettings()


async def test_the_calls_work(harness):
    *calls, output = "".join(blocks("sh")).splitlines()
    await harness.load(dag("ingest", task("download", outlets=("s3://lake/a/orders",))))
    firsts = []
    for call in calls:
        address, headers = curl_arguments(call, harness.url)
        async with harness.session.get(address, headers=headers) as response:
            reader = await Reader(response, None).begin()
            if headers:  # a place that this database does not know
                assert (await reader.take())[0].event == "reset"
            run_id = await harness.start("ingest")
            await harness.finish(run_id, 0)
            firsts.append((await reader.take())[0].event)
            await harness.wait(run_id, "success")
    assert firsts == ["run", "dataset", "run"]
    await harness.write(run_id, 0, 0, "line")
    address, headers = curl_arguments(output, harness.url, id=f"{run_id}.download")
    async with harness.session.get(address, headers=headers) as response:
        assert [message.event for message in await Reader(response, None).rest()] == ["line", "end"]


async def test_the_program_listens(harness, capsys):
    (program,) = blocks("python")
    said = anyio.Event()
    found = []

    def say(*words):
        found.append(words)
        said.set()

    names = {"print": say}
    exec(program, names)
    async with anyio.create_task_group() as group:
        group.start_soon(names["listen"], harness.url)
        with anyio.fail_after(20):
            while not found:  # it may not listen yet
                await harness.post("/api/v1/datasets/events", {"dataset": "x://a"})
                with anyio.move_on_after(0.2):
                    await said.wait()
        group.cancel_scope.cancel()
    event, change_name = found[0]
    assert (event, change_name.dataset) == ("dataset", "x://a")
