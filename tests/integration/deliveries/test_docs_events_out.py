"""The examples of docs/events-out.md work."""

import re
import shlex
import tomllib
from pathlib import Path

import anyio
import pytest
from aiohttp import web

from pubsubflow.cli.main import make_app
from pubsubflow.config import load_config
from support.signals import TIMEOUT_SECONDS

pytestmark = pytest.mark.anyio

PAGE = (Path(__file__).parents[3] / "docs" / "events-out.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def names_of(block):
    names = {}
    exec(compile(block, "events-out.md", "exec"), names)
    return names


async def test_the_receiver_takes_what_comes(harness):
    receive = names_of(blocks("python")[0])["receive"]
    received = []

    async def take(request):
        headers = {name.lower(): value for name, value in request.headers.items()}
        received.append(receive(harness.receiver.secrets["docs"], headers, await request.read()))
        return web.Response()

    app = web.Application()
    app.router.add_post("/", take)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handle_signals=False)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    made = await harness.subscribe("docs", url=f"http://127.0.0.1:{port}/")
    (event_id,) = await harness.post("a")
    await harness.until_subscription(made, lambda found: found.delivered)
    await runner.cleanup()
    assert received == [(f"{event_id}_{made.id}", "s3://lake/orders", {"name": "a"})]


async def test_the_watcher_hears_what_happened(harness, nats):
    watch = names_of(blocks("python")[1])["watch"]
    heard = []

    async def handle(subject, data):
        heard.append((subject, data))
        return True

    with anyio.fail_after(TIMEOUT_SECONDS):
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: watch(nats.url, handle, token=nats.token))
            await harness.post("a")
    assert heard == [("s3://lake/orders", b'{"name":"a"}')]


def test_the_command_is_one():
    (command,) = [block for block in blocks("sh") if block.startswith("pubsubflow")]
    called, bound, _ = make_app().parse_args(shlex.split(command)[1:], exit_on_error=False)
    assert called.__name__ == "create"
    assert bound.args[0] == "https://example.com/events"


def test_the_settings_are_settings(tmp_path):
    (block,) = blocks("toml")
    file = tmp_path / "pubsubflow.toml"
    file.write_text(block)
    found = load_config(file=file, environ={}, flags={}).subscriptions
    given = tomllib.loads(block)["subscriptions"]
    assert list(found.retry_seconds) == given["retry_seconds"]
    listed = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
    assert set(found.__struct_fields__) <= listed
