"""Notifiers against servers that check requests as their documentation has them."""

import asyncio
import sys
from datetime import UTC, datetime

import msgspec
import pytest
from aiohttp import web
from aiosmtpd.smtp import SMTP

from pubsubflow import DefinitionError, notify
from pubsubflow.authoring.alerts.callbacks import callback_name
from pubsubflow.authoring.runtime.callback_context import CallbackContext
from pubsubflow.errors import ConfigError, PubsubflowError
from pubsubflow.hooks.http import HttpFailed
from pubsubflow.model.callbacks import CallbackFacts, FailedTask
from pubsubflow.model.connections import make_connection
from pubsubflow.model.subscriptions import read_key, sign
from support.web_server import served

pytestmark = pytest.mark.anyio
KEY = "whsec_" + "QUJD" * 10


def context(**connections):
    known = {name: make_connection(name, **given) for name, given in connections.items()}
    facts = CallbackFacts(
        kind="on_failure",
        dag_id="etl",
        run_id="r1",
        params={"day": "2026-11-29"},
        created_at=datetime(2026, 11, 29, tzinfo=UTC),
        state="failed",
        failed=(FailedTask(0, "load", -1, 2, "ValueError: no\nmore"),),
        call=7,
    )
    return CallbackContext(
        facts,
        read_connection=known.__getitem__,
        read_variable=lambda _: None,
        write_log=lambda *_: None,
    )


@pytest.fixture
async def receiver():
    """Serve every path, keep requests; `answer` says how."""

    class Receiver:
        answer = (200, "ok")

    kept = Receiver()
    kept.requests = []

    async def take(request):
        kept.requests.append((request.path, dict(request.headers), await request.read()))
        return web.Response(status=kept.answer[0], text=kept.answer[1])

    async with served(web.post("/{path:.*}", take)) as kept.url:
        yield kept


async def test_slack_gets_a_rendered_text(receiver):
    secrets = {"webhook_url": f"{receiver.url}/services/T0/B0/X"}
    await notify.Slack(text="{{ params.day }}: {{ failed[0].task_id }} :fire:")(
        context(slack_default={"secrets": secrets})
    )
    path, headers, body = receiver.requests[0]
    assert path == "/services/T0/B0/X"
    assert headers["Content-Type"] == "application/json"
    assert msgspec.json.decode(body) == {"text": "2026-11-29: load :fire:"}


async def test_pagerduty_is_triggered_and_resolved_under_one_key(receiver):
    """https://developer.pagerduty.com/docs/send-alert-event: v2/enqueue, 202."""
    receiver.answer = (202, '{"status": "success"}')
    ctx = context(
        pagerduty_default={"uri": receiver.url, "secrets": {"routing_key": "r" * 32}},
    )
    await notify.PagerDuty(severity="critical")(ctx)
    await notify.PagerDuty(action="resolve")(ctx)
    (path, _, first), (_, _, second) = receiver.requests
    assert path == "/v2/enqueue"
    begun = msgspec.json.decode(first)
    assert begun.keys() == {"routing_key", "event_action", "dedup_key", "payload"}
    assert begun["event_action"] == "trigger"
    assert begun["payload"].keys() >= {"summary", "source", "severity"}
    assert begun["payload"]["severity"] == "critical"
    assert msgspec.json.decode(second) == {
        "routing_key": "r" * 32,
        "event_action": "resolve",
        "dedup_key": begun["dedup_key"],
    }
    assert begun["dedup_key"] == "pubsubflow/etl"
    receiver.answer = (400, '{"message": "Event object is invalid"}')
    with pytest.raises(HttpFailed, match="invalid"):
        await notify.PagerDuty()(ctx)


async def test_a_webhook_is_signed_and_has_the_same_id_over_tries(receiver):
    ctx = context(hook={"uri": f"{receiver.url}/told", "secrets": {"signing_key": KEY}})
    await notify.Webhook(connection="hook", headers={"X-Dag": "{{ dag_id }}"})(ctx)
    path, headers, body = receiver.requests[0]
    sent = msgspec.json.decode(body)
    assert (path, headers["X-Dag"], sent["dag_id"]) == ("/told", "etl", "etl")
    assert sent["failed"][0]["task_id"] == "load"
    expected = sign(read_key(KEY), "callback-7", int(headers["webhook-timestamp"]), body)
    assert headers["webhook-signature"] == expected["webhook-signature"]
    receiver.answer = (500, "broken")
    with pytest.raises(HttpFailed, match="broken"):
        await notify.Webhook(connection="hook")(ctx)


class Inbox:
    def __init__(self):
        self.mails = []

    async def handle_RCPT(self, _server, _session, envelope, address, _options):  # noqa: N802
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server, _session, envelope):  # noqa: N802
        self.mails.append((envelope.mail_from, envelope.rcpt_tos, envelope.content.decode()))
        return "250 taken"


async def test_a_mail_has_a_subject_of_one_line_and_the_failures(monkeypatch):
    inbox = Inbox()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(inbox, hostname="test"), "127.0.0.1", 0)
    async with server:
        uri = f"smtp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ctx = context(smtp_default={"uri": uri, "extra": {"from": "psf@example.org"}})
        await notify.Email(
            to=["ann@example.org", "bob@example.org"], subject="{{ failed[0].error }}"
        )(ctx)
    sender, recipients, content = inbox.mails[0]
    assert (sender, recipients) == ("psf@example.org", ["ann@example.org", "bob@example.org"])
    assert "Subject: ValueError: no more\r\n" in content
    assert "load: ValueError: no" in content
    with pytest.raises(ConfigError, match="sender"):
        await notify.Email(to="ann@example.org")(context(smtp_default={"uri": "smtp://h"}))


async def test_a_program_gets_the_facts_and_its_code_counts(capsys):
    read = "import json, sys, os; f = json.load(sys.stdin); print(f['dag_id'], os.environ['WHO'])"
    made = notify.Exec(command=[sys.executable, "-c", read], environment={"WHO": "{{ kind }}"})
    await made(context())
    assert capsys.readouterr().out == "etl on_failure\n"
    with pytest.raises(PubsubflowError, match="code 3"):
        await notify.Exec(command=[sys.executable, "-c", "raise SystemExit(3)"])(context())
    with pytest.raises(DefinitionError, match="list"):
        notify.Exec(command="rm -rf /")


def test_a_notifier_is_a_value_that_shows_no_secret():
    assert notify.Slack(text="x") == notify.Slack(text="x")
    assert callback_name(notify.Slack()) == "Slack"
    with pytest.raises(AttributeError, match="no notifier 'Teams' is installed"):
        notify.Teams  # noqa: B018
