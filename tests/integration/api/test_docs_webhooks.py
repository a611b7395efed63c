"""The examples of docs/webhooks.md work: each webhook takes what its sender sends."""

import base64
import hmac
import itertools
import json
import re
import shlex
import time
from pathlib import Path

import aiohttp
import pytest
from anyio import to_thread

from pubsubflow.api import ApiSettings
from pubsubflow.authoring.registry import loading
from pubsubflow.store.catalog import Catalog
from pubsubflow.webhooks.secrets import EnvironmentSecrets
from support.api import ApiHarness
from support.signers import basic, delivery, gitlab, slack, standard, stripe_signed
from support.specs import loaded

pytestmark = pytest.mark.anyio

PAGE = Path(__file__).parents[3] / "docs" / "webhooks.md"
GITHUB = "It's a Secret to Everybody"
DESK = "whsec_" + base64.b64encode(b"d" * 32).decode()
ENVIRON = {
    "PUBSUBFLOW_SECRET_GITHUB": GITHUB,
    "PUBSUBFLOW_SECRET_STRIPE": "whsec_stripe",
    "SLACK": "slack",
    "GITLAB": "gitlab",
    "DESK": DESK,
    "SHOPIFY": "shopify",
    "METER": "the-meters-token",
    "SCALE": "scale",
}
UNMARKED = ("gitlab", "scale")  # nothing in these requests tells a retry
PUSH = {"ref": "refs/heads/main", "after": "4e7fc96", "pusher": {"name": "ann"}}
PAID = {"id": "ch_1", "amount": 500, "currency": "pln"}
SAID = {"type": "message", "text": "hi", "channel": "C1"}
MERGED = {"action": "merge", "title": "Faster"}


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)


def body(value):
    return json.dumps(value).encode()


def shopify(sent):
    digest = base64.b64encode(hmac.digest(b"shopify", sent, "sha256")).decode()
    return delivery(sent, x_shopify_hmac_sha256=digest, x_shopify_event_id="e1")


def deliveries():
    """Return webhook → what its sender sends, and what the event must hold."""
    at = int(time.time())
    charge = {"id": "evt_1", "type": "charge.succeeded", "data": {"object": PAID}}
    message = {"type": "event_callback", "event_id": "Ev1", "event": SAID}
    merge = {"object_kind": "merge_request", "object_attributes": MERGED}
    return {
        "stripe": (
            stripe_signed(body(charge), secret="whsec_stripe", at=at),
            {"charge": "ch_1", "amount": 500},
        ),
        "slack": (slack(body(message), secret="slack", at=at), {"text": "hi", "channel": "C1"}),
        "gitlab": (gitlab(body(merge), secret="gitlab"), {"title": "Faster"}),
        "tickets": (standard(body({"n": 1}), secret=DESK, at=at), {"n": 1}),
        "shopify": (shopify(body({"id": 7, "total_price": "1.50"})), {"order": 7, "total": "1.50"}),
        "scale": (basic(body({"kg": 3}), secret="scale", user="scale"), {"kg": 3}),
    }


def read_curl(command, url):
    """Return URL, headers and data of a curl command."""
    words = shlex.split(command.replace("\\\n", " "))
    assert words[:2] == ["curl", "-s"]
    headers = dict(
        word.split(": ", 1) for option, word in itertools.pairwise(words) if option == "-H"
    )
    data = words[words.index("-d") + 1].encode()
    headers.setdefault("Content-Type", "application/x-www-form-urlencoded")  # as curl does
    return words[2].replace("http://127.0.0.1:8080", url), headers, data


@pytest.fixture
def page():
    """Run the page's Python; return its names and the webhooks it declares."""
    names = {"__name__": "webhooks"}
    with loading(str(PAGE)) as collected:
        exec(compile("\n".join(blocks("python")), PAGE, "exec"), names)
    return names, tuple(hook.to_spec() for hook in collected.hooks.values())


@pytest.fixture
async def served(serve, database, bus, page):
    _, hooks = page
    await Catalog(database).save([loaded(file="page.py", hooks=hooks)])
    secrets = EnvironmentSecrets(ENVIRON)
    async with (
        serve(ApiSettings(port=0), secrets=secrets) as (api, _),
        aiohttp.ClientSession() as session,
    ):
        yield ApiHarness(api.url, session, bus, database)


async def newest(harness):
    return (await harness.get("/api/v1/datasets/events?limit=1"))["items"][0]


async def test_every_webhook_of_the_page_takes_what_its_sender_sends(served, page):
    sent = deliveries()
    _, hooks = page
    assert {hook.name for hook in hooks} == {*sent, "github", "meter", "local"}
    for name, (signed, extra) in sent.items():
        headers = {key: value.decode() for key, value in signed.headers}
        headers["Content-Type"] = "application/json"
        url = f"{served.url}/hooks/{name}"
        for status in (202, 202 if name in UNMARKED else 200):
            async with served.session.post(url, data=signed.body, headers=headers) as answer:
                assert answer.status == status, (name, await answer.text())
        assert (await newest(served))["extra"] == extra


async def test_a_request_signed_as_the_page_does_is_githubs(served, page):
    names, _ = page
    for delivery_id in ("d1", "d1"):
        await to_thread.run_sync(names["push"], served.url, GITHUB, PUSH, delivery_id)
    events = (await served.get("/api/v1/datasets/events"))["items"]
    assert [event["extra"] for event in events] == [{"commit": "4e7fc96", "by": "ann"}]
    exported = next(block for block in blocks("sh") if "export" in block)
    assert shlex.split(exported)[1] == f"PUBSUBFLOW_SECRET_GITHUB={GITHUB}"


async def test_the_commands_of_the_page_make_events(served):
    commands = [block for block in blocks("sh") if block.startswith("curl")]
    assert len(commands) == 2
    for command in commands:
        url, headers, data = read_curl(command, served.url)
        async with served.session.post(url, data=data, headers=headers) as answer:
            assert answer.status == 202, await answer.text()
        assert (await newest(served))["extra"] == json.loads(data)
