"""Webhooks over HTTP: what senders get, and what becomes of what they send."""

import base64
import hashlib
import hmac
import json
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial

import aiohttp
import anyio
import msgspec
import pytest
import standardwebhooks
import stripe
from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent

from pubsubflow.api import ApiSettings
from pubsubflow.model.webhooks import (
    Basic,
    Bearer,
    GitHub,
    Hmac,
    InstalledVerifier,
    Secret,
    Slack,
    StandardWebhooks,
    Stripe,
    Unverified,
    WebhookSpec,
)
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.store.catalog import Catalog
from pubsubflow.webhooks.secrets import EnvironmentSecrets
from support.api import ApiHarness
from support.plugin_distribution import SIGNING, VERIFIERS, distribution
from support.specs import dag, loaded, task

pytestmark = pytest.mark.anyio

D = "s3://lake/hooked"
HOOKS, LETTERS_PATH, EVENTS = (
    "/api/v1/hooks",
    "/api/v1/dead-letters",
    "/api/v1/datasets/events",
)
SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()
JSON = {"Content-Type": "application/json"}


def hook(name, verify, **more):
    return WebhookSpec(name, D, verify, **more)


class WebhookHarness(ApiHarness):
    """The server under test, with webhooks."""

    async def declare(self, *hooks, file="hooks.py", specs=()):
        """Declare webhooks in a file, and wait until they are in force."""

        def notify():
            self.bus.publish(Subjects.DAGS_CHANGED, b"")

        catalog = Catalog(self.database, dags_changed=notify)
        await catalog.save([loaded(*specs, file=file, text=f"{len(hooks)}", hooks=hooks)])
        names = {each.name for each in hooks}
        await self.get_until(
            HOOKS, lambda found: names <= {each["name"] for each in found["items"]}
        )

    async def send(self, name, body=b"{}", *, status=202, **headers):
        """Post to a webhook; return the answer and keep its headers."""
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        url = f"{self.url}/hooks/{name}"
        async with self.session.post(url, data=body, headers=JSON | named) as response:
            text = await response.text()
            assert response.status == status, text
            self.headers = response.headers
            return json.loads(text) if text else None

    async def events(self):
        return (await self.get(EVENTS))["items"]

    async def counts(self, name):
        found = {each["name"]: each for each in (await self.get(HOOKS))["items"]}
        return found[name]


@pytest.fixture
def open_webhooks(serve, database, bus):
    @asynccontextmanager
    async def opened(**settings):
        secrets = EnvironmentSecrets({"PUBSUBFLOW_SECRET_KNOWN": "known"})
        served = serve(ApiSettings(port=0, **settings), secrets=secrets)
        async with served as (api, _), aiohttp.ClientSession() as session:
            yield WebhookHarness(api.url, session, bus, database)

    return opened


@pytest.fixture
async def webhooks(open_webhooks):
    async with open_webhooks() as opened:
        yield opened


def signed_github(body, secret="secret"):
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {"x_hub_signature_256": f"sha256={digest}"}


def basic(credentials):
    return "Basic " + base64.b64encode(credentials.encode()).decode()


def signed_standard(body, name):
    now = datetime.now(UTC)
    signature = standardwebhooks.Webhook(SECRET).sign(name, now, body.decode())
    return {
        "webhook_id": name,
        "webhook_timestamp": str(int(now.timestamp())),
        "webhook_signature": signature,
    }


def signed_slack(body, secret="secret", at=None):
    now = at or int(time.time())
    digest = hmac.new(secret.encode(), f"v0:{now}:".encode() + body, hashlib.sha256).hexdigest()
    return {"x_slack_request_timestamp": str(now), "x_slack_signature": f"v0={digest}"}


async def test_a_signed_request_becomes_an_event_that_starts_a_run(webhooks):
    await webhooks.declare(
        hook(
            "orders",
            StandardWebhooks(SECRET),
            when="body.type == 'order.paid'",
            extra={"amount": "body.data.amount"},
            partition="body.data.day",
        ),
        specs=[dag("count", task("work"), on=[D])],
    )
    body = b'{"type": "order.paid", "data": {"amount": 12, "day": "2026-11-20"}}'
    made = await webhooks.send("orders", body, **signed_standard(body, "msg_1"))
    (event,) = await webhooks.events()
    assert made == {"status": "accepted", "event_id": event["event_id"]}
    assert (event["dataset"], event["extra"], event["partition"], event["source"]) == (
        D,
        {"amount": 12},
        "2026-11-20",
        "webhook:orders",
    )
    (run,) = (await webhooks.get("/api/v1/runs"))["items"]
    assert run["dag_id"] == "count"


async def test_a_webhook_that_only_a_newer_version_can_verify_is_left_to_it(webhooks):
    """Its senders are to try again, perhaps at another daemon; others are served."""
    await webhooks.declare(hook("newer", Unverified()), hook("known", Unverified()))
    async with webhooks.database.connection() as connection:
        await connection.execute(
            "UPDATE webhook SET spec = $1 WHERE name = 'newer'",
            msgspec.msgpack.encode({"name": "newer", "dataset": D, "verify": {"kind": "oracle"}}),
        )
    webhooks.bus.publish(Subjects.DAGS_CHANGED, b"")
    await webhooks.get_until(
        HOOKS, lambda found: [each["name"] for each in found["items"]] == ["known"]
    )
    refused = await webhooks.send("newer", status=503)
    assert "a newer pubsubflow" in refused["detail"]
    await webhooks.send("known")


async def test_the_same_delivery_again_is_the_first_event(webhooks):
    await webhooks.declare(hook("orders", StandardWebhooks(SECRET)), hook("other", Unverified()))
    first = await webhooks.send("orders", **signed_standard(b"{}", "msg_1"))
    again = await webhooks.send("orders", status=200, **signed_standard(b"{}", "msg_1"))
    assert again == {"status": "duplicate", "event_id": first["event_id"]}
    await webhooks.send("orders", **signed_standard(b"{}", "msg_2"))
    await webhooks.send("other", webhook_id="msg_1")
    assert len(await webhooks.events()) == 3
    counts = await webhooks.counts("orders")
    assert (counts["received"], counts["accepted"], counts["duplicates"]) == (3, 2, 1)


async def test_what_is_not_believed_is_refused_with_its_reason(webhooks):
    await webhooks.declare(hook("hub", GitHub("secret")))
    problem = await webhooks.send("hub", status=401, **signed_github(b"{}", "another"))
    assert "does not match" in problem["detail"]
    problem = await webhooks.send("hub", status=401)
    assert "x-hub-signature-256 is missing" in problem["detail"]
    counts = await webhooks.counts("hub")
    assert (counts["refused"], counts["accepted"], counts["verifier"]) == (2, 0, "github")
    assert "is missing" in counts["last_refusal"]
    assert await webhooks.events() == []


async def test_a_request_that_when_does_not_mean_makes_no_event(webhooks):
    await webhooks.declare(hook("hub", GitHub("secret"), when="body.action == 'opened'"))
    body = b'{"action": "closed"}'
    reply = await webhooks.send("hub", body, status=200, **signed_github(body))
    assert reply["status"] == "filtered"
    assert "is False" in reply["reason"]
    assert await webhooks.events() == []


async def test_stripes_own_signer_is_believed(webhooks):
    await webhooks.declare(hook("pay", Stripe("whsec_x"), extra={"type": "body.type"}))
    body = b'{"id": "evt_1", "object": "event", "type": "charge.succeeded"}'
    for status in (202, 200):
        header = stripe.WebhookSignature.generate_signature_header(body.decode(), "whsec_x")
        await webhooks.send("pay", body, status=status, stripe_signature=header)
    (event,) = await webhooks.events()
    assert event["extra"] == {"type": "charge.succeeded"}


async def test_github_checks_the_address_first_and_may_send_forms(webhooks):
    await webhooks.declare(hook("hub", GitHub("secret")))
    ping = b'{"zen": "Keep it logically awesome.", "hook_id": 1}'
    reply = await webhooks.send(
        "hub", ping, status=200, x_github_event="ping", **signed_github(ping)
    )
    assert reply == {"status": "pong"}
    await webhooks.send("hub", ping, status=401, x_github_event="ping")
    form = b"payload=%7B%22ref%22%3A+%22main%22%7D"
    kind = {"content_type": "application/x-www-form-urlencoded"}
    await webhooks.send("hub", form, x_github_delivery="d1", **kind, **signed_github(form))
    assert [event["extra"] for event in await webhooks.events()] == [{"ref": "main"}]


async def test_slack_checks_the_address_first(webhooks):
    await webhooks.declare(hook("chat", Slack("secret")))
    requested = b'{"type": "url_verification", "challenge": "3eZbrw1aB"}'
    reply = await webhooks.send("chat", requested, status=200, **signed_slack(requested))
    assert reply["challenge"] == "3eZbrw1aB"
    await webhooks.send("chat", requested, status=401)
    said = b'{"type": "event_callback", "event_id": "Ev1", "event": {"text": "hi"}}'
    for status in (202, 200):
        await webhooks.send("chat", said, status=status, **signed_slack(said))
    assert len(await webhooks.events()) == 1


async def test_senders_of_cloud_events_are_let_in_and_their_events_are_taken_once(webhooks):
    await webhooks.declare(hook("cloud", Bearer("token")))
    requested = {"WebHook-Request-Origin": "events.example.com", "WebHook-Request-Rate": "120"}
    url = f"{webhooks.url}/hooks/cloud"
    async with webhooks.session.options(url, headers=requested) as allowed:
        assert allowed.status == 200
        assert allowed.headers["WebHook-Allowed-Origin"] == "events.example.com"
        assert allowed.headers["WebHook-Allowed-Rate"] == "120"
        assert "POST" in allowed.headers["Allow"]
    async with webhooks.session.options(url, headers={"WebHook-Request-Origin": "a b"}) as refused:
        assert refused.status == 400
    attributes = {"id": "1", "source": "/till", "type": "sale", "specversion": "1.0"}
    event = CloudEvent(attributes | {"datacontenttype": "application/json"}, {"n": 1})
    statuses = []
    for message in (to_binary_event(event), to_structured_event(event)):
        headers = dict(message.headers) | {"Authorization": "Bearer token"}
        async with webhooks.session.post(url, data=message.body, headers=headers) as response:
            statuses.append(response.status)
    assert statuses == [202, 200]
    assert [event["extra"] for event in await webhooks.events()] == [{"n": 1}]


async def test_tokens_and_passwords(webhooks):
    await webhooks.declare(hook("token", Bearer("t")), hook("user", Basic("u", "p")))
    await webhooks.send("token", authorization="Bearer t")
    await webhooks.send("token", status=401, authorization="Bearer x")
    assert webhooks.headers["WWW-Authenticate"] == "Bearer"
    await webhooks.send("user", authorization=basic("u:p"))
    await webhooks.send("user", status=401, authorization=basic("u:x"))
    assert webhooks.headers["WWW-Authenticate"].startswith("Basic ")


async def test_a_webhook_that_verifies_nothing_serves_this_machine_alone(webhooks):
    await webhooks.declare(hook("open", Unverified()), hook("hub", GitHub("secret")))
    await webhooks.send("open")
    for header in ("x_forwarded_for", "forwarded", "via"):
        problem = await webhooks.send("open", status=403, **{header: "192.0.2.1"})
        assert "this machine only" in problem["detail"]
    await webhooks.send("open", status=403, host="rebound.example.com")
    await webhooks.send("open", status=403, origin="https://example.com")
    through_a_proxy = {"host": "hooks.example.com", "x_forwarded_for": "192.0.2.1"}
    await webhooks.send("hub", **through_a_proxy, **signed_github(b"{}"))


async def test_what_cannot_become_an_event_is_kept_once_and_can_be_sent_again(webhooks):
    spec = hook("hub", GitHub("secret"), extra={"n": "body.n + 1"})
    await webhooks.declare(spec)
    body = b'{"n": "one"}'
    headers = signed_github(body) | {"x_github_delivery": "d1", "authorization": "Bearer private"}
    for _ in range(2):
        problem = await webhooks.send("hub", body, status=422, **headers)
        assert "kept as a dead letter" in problem["detail"]
    (letter,) = (await webhooks.get(LETTERS_PATH))["items"]
    assert (letter["kind"], letter["subject"]) == ("hook", "webhook hub")
    assert "body.n + 1 failed" in letter["reason"]
    path = f"{LETTERS_PATH}/{letter['id']}"
    shown = await webhooks.get(path)
    assert shown["payload"]["body"] == {"n": "one"}
    assert "private" not in json.dumps(shown)
    await webhooks.post(f"{path}/resend", {}, status=422)
    mended = {"payload": {**shown["payload"], "body": {"n": 1}}}
    await webhooks.post(f"{path}/resend", mended, status=200)
    assert [event["extra"] for event in await webhooks.events()] == [{"n": 2}]
    assert (await webhooks.get(LETTERS_PATH))["items"] == []
    await webhooks.post(f"{path}/resend", mended, status=422)
    counts = await webhooks.counts("hub")
    assert (counts["dead"], counts["refused"]) == (2, 0)


async def test_a_dead_letter_follows_the_rules_of_today(webhooks):
    await webhooks.declare(hook("open", Unverified(), extra={"n": "body.n"}))
    await webhooks.send("open", b'{"m": 1}', status=422)
    await webhooks.send("open", b"{", status=422)
    await webhooks.declare(
        hook("open", Unverified(), extra={"n": "body.m"}), hook("new", Unverified())
    )
    unreadable, unmapped = (await webhooks.get(LETTERS_PATH))["items"]
    await webhooks.post(f"{LETTERS_PATH}/{unmapped['id']}/resend", {}, status=200)
    assert [event["extra"] for event in await webhooks.events()] == [{"n": 1}]
    problem = await webhooks.post(f"{LETTERS_PATH}/{unreadable['id']}/resend", {}, status=422)
    assert "not JSON" in problem["detail"]


async def test_an_event_that_is_too_large_is_kept(webhooks):
    await webhooks.declare(hook("open", Unverified()))
    problem = await webhooks.send("open", json.dumps({"a": "x" * 300_000}).encode(), status=422)
    assert "larger than" in problem["detail"]
    assert len((await webhooks.get(LETTERS_PATH))["items"]) == 1


async def test_a_body_beyond_the_limit_is_refused_while_it_is_read(open_webhooks):
    async with open_webhooks(max_body_bytes=1000) as webhooks:
        await webhooks.declare(hook("open", Unverified()))
        await webhooks.send("open", b"1" * 1001, status=413)
        await webhooks.send("open", b"{}" + b" " * 998)
        assert (await webhooks.counts("open"))["refused"] == 1


async def test_a_compressed_body_is_refused(webhooks):
    await webhooks.declare(hook("open", Unverified()))
    await webhooks.send("open", b"\x1f\x8b" + b"x" * 50, status=415, content_encoding="gzip")


async def test_an_unknown_webhook_is_not_found(webhooks):
    problem = await webhooks.send("nobody", status=404)
    assert problem["detail"] == "no webhook named 'nobody'"
    async with webhooks.session.get(f"{webhooks.url}/hooks/nobody") as response:
        assert response.status == 405


async def test_secrets_come_from_where_the_api_runs(webhooks):
    await webhooks.declare(
        hook("known", GitHub(Secret("KNOWN"))),
        hook("rotated", GitHub([Secret("NEXT"), Secret("KNOWN")])),
        hook("unknown", GitHub(Secret("NEXT"))),
        hook("unfit", StandardWebhooks(Secret("KNOWN"))),
    )
    body = b"{}"
    for name in ("known", "rotated"):
        await webhooks.send(name, body, **signed_github(body, "known"))
    for name in ("unknown", "unfit"):
        problem = await webhooks.send(name, body, status=503, **signed_github(body, "known"))
        assert "cannot verify requests now" in problem["detail"]
    troubles = {each["name"]: each.get("trouble") for each in (await webhooks.get(HOOKS))["items"]}
    assert troubles["known"] is None
    assert "NEXT" in troubles["rotated"]
    assert "NEXT" in troubles["unknown"]
    assert "known" not in troubles["unfit"]


async def test_webhooks_come_change_and_go_with_their_file(webhooks):
    await webhooks.declare(hook("a", Unverified()), hook("b", Unverified()))
    await webhooks.send("a")
    await webhooks.catalog.save([loaded(file="hooks.py", error="SyntaxError")])
    await webhooks.send("a")
    await webhooks.declare(hook("a", GitHub("secret")), hook("c", Unverified()))
    await webhooks.send("a", status=401)
    await webhooks.send("b", status=404)
    counts = await webhooks.counts("a")
    assert (counts["accepted"], counts["refused"], counts["file"]) == (2, 1, "hooks.py")
    await webhooks.declare(hook("d", Unverified()), file="more.py")
    await webhooks.catalog.remove(["hooks.py"])
    await webhooks.declare(hook("e", Unverified()), file="more.py")
    assert [each["name"] for each in (await webhooks.get(HOOKS))["items"]] == ["e"]


async def test_the_list_is_paged_and_shows_no_secret(webhooks):
    await webhooks.declare(*(hook(name, GitHub("hunter2")) for name in "cab"))
    first = await webhooks.get(f"{HOOKS}?limit=2")
    assert [each["name"] for each in first["items"]] == ["a", "b"]
    rest = await webhooks.get(f"{HOOKS}?limit=2&after={first['next']}")
    assert ([each["name"] for each in rest["items"]], rest["next"]) == (["c"], None)
    assert first["items"][0]["path"] == "/hooks/a"
    assert "hunter2" not in json.dumps(first)
    datasets = await webhooks.get("/api/v1/datasets")
    assert [each["dataset"] for each in datasets["items"]] == [D]


async def test_senders_side_by_side_with_one_delivery_make_one_event(webhooks):
    await webhooks.declare(hook("hub", GitHub("secret")))
    answers = []

    async def deliver(number):
        headers = signed_github(b"{}") | {"X-GitHub-Delivery": f"d{number % 5}"}
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        async with webhooks.session.post(
            f"{webhooks.url}/hooks/hub", data=b"{}", headers=JSON | named
        ) as response:
            answers.append((response.status, (await response.json())["event_id"]))

    async with anyio.create_task_group() as group:
        for number in range(50):
            group.start_soon(deliver, number)
    assert sorted(status for status, _ in answers) == [200] * 45 + [202] * 5
    assert len({event_id for _, event_id in answers}) == 5
    assert len(await webhooks.events()) == 5


async def test_a_webhook_beyond_its_share_holds_up_no_other(open_webhooks, blocked_store):
    async with open_webhooks(max_requests=4) as webhooks, anyio.create_task_group() as group:
        await webhooks.declare(hook("flooded", GitHub("secret")), hook("quiet", GitHub("secret")))
        signed = signed_github(b"{}")
        async with blocked_store() as pending:
            for _ in range(4):
                group.start_soon(partial(webhooks.send, "flooded", **signed))
            await pending(4)
            problem = await webhooks.send("flooded", status=429, **signed)
            assert "share" in problem["detail"]
            assert webhooks.headers["Retry-After"] == "1"
            group.start_soon(partial(webhooks.send, "quiet", **signed))
            await pending(5)
        # what nobody looked at was not believed either
        counts = await webhooks.counts("flooded")
        assert (counts["received"], counts["refused"]) == (5, 1)
    assert "share" in counts["last_refusal"]


async def test_signatures_of_another_time_are_refused(webhooks):
    await webhooks.declare(
        hook("standard", StandardWebhooks(SECRET)),
        hook("stripe", Stripe("whsec_x")),
        hook("slack", Slack("secret")),
    )
    for skew in (-3600, 3600):
        at = int(time.time()) + skew
        moment = datetime.fromtimestamp(at, UTC)
        signed = {
            "standard": {
                "webhook_id": "m",
                "webhook_timestamp": str(at),
                "webhook_signature": standardwebhooks.Webhook(SECRET).sign("m", moment, "{}"),
            },
            "stripe": {
                "stripe_signature": stripe.WebhookSignature.generate_signature_header(
                    "{}", "whsec_x", at
                )
            },
            "slack": signed_slack(b"{}", at=at),
        }
        for name, headers in signed.items():
            await webhooks.send(name, status=401, **headers)
    assert await webhooks.events() == []


async def test_bytes_that_are_no_http_are_answered_or_dropped(webhooks):
    await webhooks.declare(hook("any", Hmac("secret", header="X-Signed")))
    host, port = webhooks.url.removeprefix("http://").split(":")
    head = b"POST /hooks/any HTTP/1.1\r\nHost: localhost\r\n"
    for request in (
        head + b"Content-Length: 10\r\n\r\nabc",
        head + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n",
        head + b"X-Signed: \xff\xfe\r\nContent-Length: 2\r\n\r\n{}",
        head + b"X-Signed: a\r\nX-Signed: b\r\nContent-Length: 2\r\n\r\n{}",
    ):
        stream = await anyio.connect_tcp(host, int(port))
        async with stream:
            await stream.send(request)
            await stream.send_eof()
            answer = b""
            with anyio.fail_after(20):
                while True:
                    try:
                        answer += await stream.receive()
                    except (anyio.EndOfStream, anyio.BrokenResourceError):
                        break
                    if b"\r\n\r\n" in answer:
                        break
        assert not answer or answer.split()[1].startswith(b"4"), answer
    assert (await webhooks.counts("any"))["accepted"] == 0


async def test_a_verifier_of_a_plugin_decides_and_costs_no_500(webhooks, tmp_path, monkeypatch):
    with distribution(tmp_path, monkeypatch, VERIFIERS, acme_signing=SIGNING):
        acme = InstalledVerifier("acme", {"header": "x-sign"}, (Secret("KNOWN"),))
        gone = InstalledVerifier("gone", {}, ("s",))
        await webhooks.declare(hook("acme", acme), hook("gone", gone))
        await webhooks.send("acme", x_sign="known")
        for value, text in (("bad", "does not prove"), ("exit", "the verifier acme failed")):
            answer = await webhooks.send("acme", status=401, x_sign=value)
            assert text in answer["detail"]
        await webhooks.send("acme", status=401)
        await webhooks.send("gone", status=503)
    counts = await webhooks.counts("acme")
    assert (counts["verifier"], counts["accepted"], counts["refused"]) == ("acme", 1, 3)
    assert "no verifier 'gone' is installed here" in (await webhooks.counts("gone"))["trouble"]
