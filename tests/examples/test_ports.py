"""Talks' DAGs of Airflow: each port is a few lines from its slide, and runs in a real daemon."""

import asyncio
import json
import shutil
from contextlib import asynccontextmanager
from difflib import ndiff
from email import message_from_bytes, policy
from pathlib import Path

import pytest
from aiohttp import web
from aiosmtpd.smtp import SMTP

from pubsubflow import Cron
from pubsubflow.authoring.registry import loading
from pubsubflow.cli.daemon_process import child_daemon
from pubsubflow.client import Client

pytestmark = pytest.mark.anyio
EXAMPLES = Path(__file__).parents[2] / "examples"
SLIDES = Path(__file__).with_name("slides")
PORTS = {
    "hello_dag": EXAMPLES / "from_airflow" / "hello_dag.py",
    "gcp_spy": EXAMPLES / "from_airflow" / "gcp_spy.py",
    "dag_factory": EXAMPLES / "factory" / "dag_factory.py",
}
TOKEN = "xoxb-1234-hush"
GCLOUD = """#!/bin/sh
[ "$2 $3" = "instances list" ] || { echo "unknown: $*" >&2; exit 2; }
case $1 in
  sql) printf 'NAME  TIER\\norders-db  db-f1\\nusers-db   db-g1\\n' ;;
  spanner) echo 'NAME  NODES'; echo 'ledger  3' ;;
  bigtable) echo 'NAME  STATE' ;;
  compute) echo 'NAME  ZONE'; echo 'web-1  eu'; echo 'web-2  us'; echo '<b>odd</b>  us' ;;
  *) echo "unknown service: $1" >&2; exit 2 ;;
esac
"""


class Inbox:
    """What the mail server got."""

    def __init__(self):
        self.envelopes = []

    async def handle_DATA(self, _server, _session, envelope):  # noqa: N802
        self.envelopes.append(envelope)
        return "250 taken"


class Slack:
    """The Web API, as far as a message needs it."""

    def __init__(self):
        self.posts = []

    async def post(self, request):
        self.posts.append((dict(request.headers), await request.json()))
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return web.json_response({"ok": False, "error": "invalid_auth"})
        return web.json_response({"ok": True})


@asynccontextmanager
async def slack_server():
    slack = Slack()
    app = web.Application()
    app.add_routes([web.post("/api/chat.postMessage", slack.post)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield slack, f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/api"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def mail_server():
    inbox = Inbox()
    server = await asyncio.get_running_loop().create_server(
        lambda: SMTP(inbox, hostname="test"), "127.0.0.1", 0
    )
    async with server:
        yield inbox, f"smtp://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.fixture(scope="module")
def url(tmp_path_factory, fresh_home):
    """A daemon with all ports in its folder, and a stand-in for gcloud on its PATH."""
    folder = tmp_path_factory.mktemp("ports")
    for name in ("dags", "bin"):
        (folder / name).mkdir()
    for path in PORTS.values():
        shutil.copy(path, folder / "dags")
    gcloud = folder / "bin" / "gcloud"
    gcloud.write_text(GCLOUD)
    gcloud.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(folder / "bin"), prepend=":")
        with child_daemon(folder / "dags", home=fresh_home(folder / "home"), port=0) as url:
            yield url


@pytest.fixture
async def client(url):
    async with Client(url) as client:
        yield client


@pytest.mark.parametrize("name", PORTS)
def test_a_port_differs_from_its_slide_in_fewer_than_ten_lines(name):
    """Each line that goes and each that comes counts."""
    slide = (SLIDES / f"{name}.txt").read_text().splitlines()
    port = PORTS[name].read_text().splitlines()
    assert "from airflow import DAG" in slide
    assert sum(line[0] in "+-" for line in ndiff(slide, port)) < 10


@pytest.mark.parametrize(("name", "cron"), [("hello_dag", "0 0 * * *"), ("gcp_spy", "0 16 * * *")])
def test_a_port_has_the_schedule_of_its_slide(name, cron):
    with loading(name) as collected:
        exec(compile(PORTS[name].read_text(), name, "exec"), {"__name__": name})
    spec = collected.dags[name].to_spec("", "")
    assert (spec.schedule, spec.catchup) == (Cron(cron).compiled(), False)


async def test_hello_dag_says_hello(client):
    run = await client.wait(await client.trigger("hello_dag"), timeout_seconds=60)
    assert run.state == "success"
    hello = await client.task(run.run_id, "hello")
    assert hello.result.startswith("Hi, hello_dag of 20")


async def test_gcp_spy_posts_to_slack_and_mails(client):
    async with slack_server() as (slack, api_url), mail_server() as (inbox, smtp):
        await client.set_connection(
            "slack", type="slack", extra={"api_url": api_url}, secrets={"token": TOKEN}
        )
        sender = {"from": "psf@example.org"}
        await client.set_connection("smtp_default", type="smtp", uri=smtp, extra=sender)
        run = await client.wait(await client.trigger("gcp_spy"), timeout_seconds=60)
    assert run.state == "success"
    ((headers, body),) = slack.posts
    assert headers["Content-Type"] == "application/json; charset=utf-8"
    assert body == {
        "channel": "#cloud",
        "text": "*Cloud SQL*: orders-db users-db \n*Spanner*: ledger \n"
        "*Bigtable*: none\n*Compute Engine*: web-1 web-2 <b>odd</b> ",
    }
    (envelope,) = inbox.envelopes
    assert envelope.rcpt_tos == ["cloud@example.org"]
    mail = message_from_bytes(envelope.content, policy=policy.default)
    assert mail["Subject"].startswith("Instances on 20")
    assert mail.get_content_type() == "text/html"
    assert (
        "<li><b>Compute Engine</b>: web-1 web-2 &lt;b&gt;odd&lt;/b&gt; </li>" in mail.get_content()
    )
    logs = [line.message async for line in client.logs(run.run_id, "send_slack_message")]
    assert TOKEN not in json.dumps(logs)


async def test_a_thousand_dags_of_a_factory_are_known_and_run(client):
    known = await client.dags()
    assert sum(dag.dag_id.startswith("load_table_") for dag in known.items) == 1000
    assert not known.import_errors
    run = await client.wait(await client.trigger("load_table_0999"), timeout_seconds=60)
    load = await client.task(run.run_id, "load")
    assert (run.state, load.result[:16]) == ("success", "table_0999 of 20")
