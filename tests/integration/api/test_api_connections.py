"""Connections over HTTP: secrets come in, masks go out, and two writers do not undo each other."""

import shlex
from pathlib import Path

import aiohttp
import pytest

from pubsubflow.api import ApiSettings
from pubsubflow.authoring.datasets import Dataset
from pubsubflow.authoring.registry import loading
from pubsubflow.authoring.webhooks import Webhook
from pubsubflow.client import Client, RequestFailed, RequestRefused
from pubsubflow.model.webhooks import GitHub, Secret
from pubsubflow.store.catalog import Catalog
from pubsubflow.store.secrets.connections import Connections
from pubsubflow.store.secrets.keyring import Keyring
from pubsubflow.webhooks.secrets import DaemonSecrets, EnvironmentSecrets
from support.api import ApiHarness
from support.signers import github
from support.specs import loaded

pytestmark = pytest.mark.anyio

ROOT = "/api/v1/connections"
CRM = {"uri": "https://ann@crm.example.com/v2", "secrets": {"token": "hush-hush"}}


@pytest.fixture
def key_file(tmp_path):
    return Keyring(tmp_path / "keys")


@pytest.fixture
def stored(database, key_file):
    return Connections(database, key_file)


@pytest.fixture
async def harness(serve, database, bus, stored):
    secrets = DaemonSecrets(EnvironmentSecrets({"FROM_ENV": "env"}), stored)
    async with (
        serve(ApiSettings(port=0), connections=stored, secrets=secrets) as (api, _),
        aiohttp.ClientSession() as session,
    ):
        yield ApiHarness(api.url, session, bus, database)


async def send(harness, method, path, *, status, **more):
    async with harness.session.request(method, harness.url + path, **more) as response:
        text = await response.text()
        assert response.status == status, text
        assert "hush" not in text
        return response.headers.get("ETag"), text


async def test_a_connection_is_made_shown_changed_and_forgotten(harness, stored):
    one = f"{ROOT}/crm"
    await send(harness, "PUT", one, status=201, json=CRM)
    tag, _ = await send(harness, "GET", one, status=200)
    await send(harness, "GET", one, status=304, headers={"If-None-Match": tag})
    shown = await harness.get(one)
    assert tag.startswith(f'"{shown.pop("revision")}.')
    del shown["updated_at"]
    assert shown.pop("source") == "store"
    assert shown == {
        "name": "crm",
        "kind": "https",
        "uri": CRM["uri"],
        "extra": {},
        "secrets": {"token": "***"},
        "host": "crm.example.com",
        "port": None,
        "user": "ann",
        "dags": [],
    }
    changed = {"kind": "crm", "uri": "https://other/", "extra": {"a": 1}}
    again = {**changed, "secrets": {"token": "***", "more": "hush"}}
    limited = {**again, "dags": ["etl_*"]}
    await send(harness, "PUT", one, status=200, json=limited, headers={"If-Match": tag})
    # One who does not know of the list does not lift it.
    await send(harness, "PUT", one, status=200, json=again)
    assert (await harness.get(one))["dags"] == ["etl_*"]
    await send(harness, "PUT", one, status=422, json={**again, "dags": ["a/b"]})
    assert (await stored.read("crm")).secrets == {"token": "hush-hush", "more": "hush"}
    await send(harness, "DELETE", one, status=204)
    for method in ("GET", "DELETE"):
        await send(harness, method, one, status=404)


async def test_who_comes_second_with_an_old_revision_is_refused(harness):
    one, new = f"{ROOT}/crm", {"If-None-Match": "*"}
    await send(harness, "PUT", one, status=201, json=CRM, headers=new)
    await send(harness, "PUT", one, status=412, json=CRM, headers=new)
    old, _ = await send(harness, "GET", one, status=200)
    await send(harness, "PUT", one, status=200, json=CRM, headers={"If-Match": f'"x", {old}'})
    for method in ("PUT", "DELETE"):
        await send(harness, method, one, status=412, json=CRM, headers={"If-Match": old})
    await send(harness, "PUT", one, status=400, json=CRM, headers={"If-Match": "5"})
    await send(harness, "PUT", f"{ROOT}/b", status=412, json=CRM, headers={"If-Match": old})
    now, _ = await send(harness, "GET", one, status=200)
    await send(harness, "DELETE", one, status=204, headers={"If-Match": now})


async def test_lists_page_by_name(harness):
    for name in ("c", "a", "B", "d"):
        await send(harness, "PUT", f"{ROOT}/{name}", status=201, json={"uri": "https://x/"})
    first = await harness.get(f"{ROOT}?limit=3")
    rest = await harness.get(f"{ROOT}?limit=3&after={first['next']}")
    names = [each["name"] for each in first["items"] + rest["items"]]
    assert (sorted(names), rest["next"]) == (["B", "a", "c", "d"], None)


@pytest.mark.parametrize(
    ("name", "body", "status"),
    [
        ("a.b", CRM, 422),
        ("a%2Fb", CRM, 422),
        ("a%00", CRM, 400),
        ("a", {"uri": "https://u:hush@x:y/"}, 422),
        ("a", {"uri": "https://x/?token=hush"}, 422),
        ("a", {"extra": {"password": "hush"}}, 422),
        ("a", {"secrets": {"token": 5}}, 422),
        ("a", {"secrets": {"token": "***"}}, 422),
        ("a", {"secrets": {"bad name": "hush"}}, 422),
        ("a", {"passwrd": "x"}, 422),
        ("a", {"extra": {"n": "\x00"}}, 422),
        ("a", [], 422),
    ],
)
async def test_what_cannot_be_is_refused(harness, name, body, status):
    await send(harness, "PUT", f"{ROOT}/{name}", status=status, json=body)


async def test_a_lost_key_is_a_conflict_that_names_the_remedy(harness, key_file):
    await send(harness, "PUT", f"{ROOT}/crm", status=201, json=CRM)
    key_file.path.unlink()
    _, text = await send(harness, "POST", f"{ROOT}/rotate", status=409)
    assert "connection 'crm' is encrypted with key" in text
    assert "bring that key back" in text
    await send(harness, "GET", f"{ROOT}/crm", status=200)


async def test_the_client_sets_lists_rotates_and_deletes(harness, key_file):
    async with Client(harness.url) as client:
        made = await client.set_connection("crm", **CRM, revision="absent")
        with pytest.raises(RequestFailed, match="has changed since you looked"):
            await client.set_connection("crm", **CRM, revision="absent")
        await client.set_connection("crm", secrets=made.secrets, revision=made.revision)
        (before,) = await key_file.read()
        done = await client.rotate_connections()
        assert (done.connections, done.key == before.id) == (1, False)
        assert [each.name async for each in client.connections()] == ["crm"]
        await client.delete_connection("crm", revision=(await client.connection("crm")).revision)
        with pytest.raises(RequestRefused):
            await client.connection("crm")


async def test_the_command_of_the_page_sets_a_connection(harness, stored):
    page = (Path(__file__).parents[3] / "docs" / "connections.md").read_text()
    words = shlex.split(next(line for line in page.splitlines() if line.startswith("curl")))
    assert words[:4] == ["curl", "-s", "-X", "PUT"]
    path = words[4].removeprefix("http://127.0.0.1:8080")
    await send(harness, "PUT", path, status=201, data=words[-1], headers=[words[6].split(": ")])
    assert (await stored.read("crm")).secret() == "s3cr3t"


async def declare(database, *secrets):
    """Declare one webhook for each secret: h0, h1, …"""
    with loading("hooks.py") as collected:
        for number, secret in enumerate(secrets):
            Webhook(f"h{number}", dataset=Dataset(f"x://h/{number}"), verify=GitHub(Secret(secret)))
    hooks = tuple(hook.to_spec() for hook in collected.hooks.values())
    await Catalog(database).save([loaded(file="hooks.py", hooks=hooks)])


async def push(harness, hook, secret):
    sent = github(b'{"a": 1}', secret=secret)
    headers = {name: value.decode() for name, value in sent.headers}
    headers["Content-Type"] = "application/json"
    async with harness.session.post(
        f"{harness.url}/hooks/{hook}", data=sent.body, headers=headers
    ) as done:
        return done.status


async def hooks_like(harness, condition):
    await harness.get_until("/api/v1/hooks", lambda page: condition(page["items"]))


async def test_a_webhooks_secret_is_rotated_without_a_restart(harness, database):
    await declare(database, "connection:forge", "connection:forge.second", "FORGE", "FROM_ENV")
    harness.bus.publish("psf.ctl.dags", b"")
    await hooks_like(harness, lambda hooks: len(hooks) == 4)
    troubles = {each["name"]: each["trouble"] for each in await hook_views(harness)}
    assert troubles == {
        "h0": "no connection named 'forge'",
        "h1": "no connection named 'forge'",
        "h2": "the secret FORGE is not known to this daemon",
        "h3": None,
    }
    assert await push(harness, "h0", "old") == 503
    await send(harness, "PUT", f"{ROOT}/forge", status=201, json={"secrets": {"first": "old"}})
    await send(harness, "PUT", f"{ROOT}/FORGE", status=201, json={"secrets": {"first": "big"}})
    await hooks_like(harness, lambda hooks: hooks[0]["trouble"] is hooks[2]["trouble"] is None)
    assert [await push(harness, hook, "old") for hook in ("h0", "h1", "h2")] == [202, 503, 401]
    assert await push(harness, "h2", "big") == 202
    both = {"secrets": {"first": "new", "second": "other"}}
    await send(harness, "PUT", f"{ROOT}/forge", status=200, json=both)
    await hooks_like(harness, lambda hooks: "has several secrets" in (hooks[0]["trouble"] or ""))
    assert await push(harness, "h1", "other") == 202
    await send(harness, "PUT", f"{ROOT}/forge", status=200, json={"secrets": {"first": "new"}})
    await hooks_like(harness, lambda hooks: hooks[0]["trouble"] is None)
    assert [await push(harness, "h0", secret) for secret in ("old", "new")] == [401, 202]
    assert "old" not in str(await hook_views(harness))


async def hook_views(harness):
    return (await harness.get("/api/v1/hooks"))["items"]


async def test_a_connection_of_a_type_is_checked_and_tried(harness):
    """One process is started for each trial; the server that it tries is the API itself."""
    one = f"{ROOT}/self"
    body = {"type": "http", "uri": harness.url, "secrets": {"token": "hush-hush"}}
    for wrong, reason in (
        ({"type": "htp"}, "types are aws"),
        ({"extra": {"tokn": 1}}, "tokn is not a field"),
        ({"uri": None}, "uri is missing"),
    ):
        _, text = await send(harness, "PUT", one, status=422, json=body | wrong)
        assert reason in text
    extra = {"check_path": "/healthz"}
    await send(harness, "PUT", one, status=201, json=body | {"extra": extra})
    _, text = await send(harness, "POST", f"{one}/test", status=200)
    assert '"ok":true' in text
    assert "/healthz answered 200" in text
    await send(harness, "PUT", one, status=200, json=body | {"uri": "http://127.0.0.1:9/"})
    _, text = await send(harness, "POST", f"{one}/test", status=200, json={"seconds": 20})
    assert '"ok":false' in text
    await send(harness, "POST", f"{ROOT}/absent/test", status=404)
    types = await harness.get("/api/v1/connection-types")
    assert {"http", "smtp", "postgres", "generic"} <= {each["name"] for each in types}
