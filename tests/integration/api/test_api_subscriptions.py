"""Subscriptions over HTTP, by the client, and as a user types them."""

import aiohttp
import pytest
from standardwebhooks import Webhook

from pubsubflow.client import Client, RequestFailed, RequestRefused
from support.api import ApiHarness

pytestmark = pytest.mark.anyio

PATH = "/api/v1/subscriptions"
URL = "http://127.0.0.1:9/events"


@pytest.fixture
async def strict(serve, database, bus):
    async with (
        serve(allow_private=False) as (api, _),
        aiohttp.ClientSession() as session,
    ):
        yield ApiHarness(api.url, session, bus, database)


async def test_a_subscription_is_made_shown_paused_and_deleted(harness):
    made = await harness.post(
        PATH, {"url": URL, "dataset": "S3://Lake/*", "dags": ["d"]}, status=201
    )
    Webhook(made.pop("secret"))
    assert (made["dataset"], made["dags"], made["state"]) == ("s3://lake/*", ["d"], "active")
    one = f"{PATH}/{made['id']}"
    assert await harness.get(one) == made
    paused = await harness.request("PATCH", one, json={"paused": True}, headers={"If-Match": '"1"'})
    assert (paused["state"], paused["revision"]) == ("paused", "2")
    for method, body in (("PATCH", {"paused": False}), ("DELETE", None)):
        stale = {"If-Match": '"1"'}
        problem = await harness.request(method, one, status=412, json=body, headers=stale)
        assert "to revision 2" in problem["detail"]
    async with harness.session.get(harness.url + one) as response:
        tag = response.headers["ETag"]
    assert (await harness.request("DELETE", one, headers={"If-Match": tag}))["id"] == made["id"]
    await harness.request("GET", one, status=404)
    await harness.request("DELETE", one, status=404)


async def test_the_list_has_pages_and_no_secrets(harness):
    for _ in range(3):
        await harness.post(PATH, {"url": URL}, status=201)
    first = await harness.get(f"{PATH}?limit=2")
    rest = await harness.get(f"{PATH}?limit=2&after={first['next']}")
    assert len({each["id"] for each in first["items"] + rest["items"]}) == 3
    assert "whsec_" not in str(first)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"url": "ftp://example.com"}, "url"),
        ({"url": "https://user:secret@example.com"}, "url"),
        ({"url": "https://example.com:99999"}, "url"),
        ({"url": "https://exa mple.com"}, "url"),
        ({"url": URL, "dataset": "no uri"}, "dataset"),
        ({"url": URL, "where": "event."}, "where"),
        ({"url": URL, "secret": "whsec_c2hvcnQ="}, "secret"),
        ({"url": URL, "mode": "batched"}, "mode"),
        ({"url": URL, "surprise": 1}, "surprise"),
    ],
    ids=str,
)
async def test_an_invalid_subscription_is_refused_with_its_field(harness, body, field):
    problem = await harness.post(PATH, body, status=422)
    assert problem["field"] == field
    assert "c2hvcnQ" not in problem["detail"]


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "10.0.0.1", "[::1]", "[::ffff:192.168.0.1]", "0.0.0.0"]
)
async def test_a_private_address_is_refused_at_once(strict, host):
    problem = await strict.post(PATH, {"url": f"http://{host}/x"}, status=422)
    assert "allow_private" in problem["detail"]


async def test_a_test_without_anybody_who_delivers_says_so(harness):
    made = await harness.post(PATH, {"url": URL}, status=201)
    problem = await harness.post(f"{PATH}/{made['id']}/test", status=503)
    assert "no responder" in problem["detail"]


async def test_the_client_asks_all_of_it(harness):
    async with Client(harness.url) as client:
        made = await client.subscribe(URL, where="event.extra.rows > 0", ordered=False)
        assert (await client.subscription(made.id)).where == "event.extra.rows > 0"
        assert [each.id async for each in client.subscriptions()] == [made.id]
        paused = await client.pause_subscription(made.id, revision=made.revision)
        assert paused.state == "paused"
        with pytest.raises(RequestFailed):
            await client.pause_subscription(made.id, paused=False, revision=made.revision)
        assert (await client.pause_subscription(made.id, paused=False)).state == "active"
        await client.delete_subscription(made.id)
        with pytest.raises(RequestRefused, match="no subscription named"):
            await client.subscription(made.id)
