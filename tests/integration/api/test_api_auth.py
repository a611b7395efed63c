"""Who may ask: every role on every route, limits, revocation, and the record of it."""

import re
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from uuid import uuid4

import aiohttp
import anyio
import pytest

from pubsubflow.api import ApiSettings
from pubsubflow.api.auth.audit import AuditRecorder
from pubsubflow.api.auth.middleware import ALLOWED
from pubsubflow.api.auth.token_cache import TokenCache
from pubsubflow.api.http.routing import Access
from pubsubflow.errors import ConfigError, StoreUnavailable
from pubsubflow.model.auth import Role
from pubsubflow.model.wire.audit_entries import AuditEntry
from pubsubflow.store.auth import AuditLog, SessionStore, TokenStore
from support.api import ApiHarness, api_on
from support.specs import dag, task

pytestmark = pytest.mark.anyio
PATIENCE_SECONDS = 20


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


async def make(harness, name, role, **more):
    body = {"name": name, "role": role, **more}
    return await harness.post("/api/v1/tokens", body, status=201)


async def status(harness, method, path, token=None, url=None, **more):
    """Return the status of an answer, whose body is not read: it may have no end."""
    headers = {**more.pop("headers", {}), **(bearer(token) if token else {})}
    async with harness.session.request(
        method, (url or harness.url) + path, headers=headers, **more
    ) as response:
        return response.status


def routes_of(api):
    return [route for part in api._parts for route in part.routes()]


@pytest.fixture
async def guarded(serve, database, bus):
    """A server with a token of each role; what the harness sends by itself is an admin's."""
    tokens = TokenStore(database)
    made = {
        role: await tokens.create(
            f"the-{role}", role, datasets=["s3://lake/*"] * (role is Role.EMITTER), by="test"
        )
        for role in Role
    }
    admin = bearer(made[Role.ADMIN].token)
    async with serve() as (api, _), aiohttp.ClientSession(headers=admin) as session:
        harness = ApiHarness(api.url, session, bus, database)
        harness.api = api
        harness.tokens = {role: each.token for role, each in made.items()}
        yield harness


async def test_every_route_admits_the_roles_it_is_meant_for_and_no_others(guarded):
    found = []
    async with aiohttp.ClientSession() as session:
        guarded.session = session
        for route in routes_of(guarded.api):
            path = re.sub(r"\{\w+\}", "1", route.path)
            for role in (None, *Role):
                token = None if role is None else guarded.tokens[role]
                # a body that nothing takes: who gets that far is told so
                got = await status(guarded, route.method, path, token, data=b"[")
                found.append((route, role, got))
    for route, role, got in found:
        place = f"{role}: {route.method} {route.path}"
        if route.access is Access.OPEN:
            assert got not in (401, 403), place
        elif role is None:
            assert got == HTTPStatus.UNAUTHORIZED, place
        elif route.access in ALLOWED[role]:
            assert got not in (401, 403), place
        else:
            assert got == HTTPStatus.FORBIDDEN, place


async def test_only_health_and_webhooks_are_open(guarded):
    opened = {route.path for route in routes_of(guarded.api) if route.access is Access.OPEN}
    assert opened <= {
        "/healthz",
        "/readyz",
        "/hooks/{name}",
        "/approve/{link}",
        "/",
        "/api/v1/openapi.json",
        "/api/v1/session",  # to sign in
    }
    reads = {"GET", "HEAD", "OPTIONS"}
    for route in routes_of(guarded.api):
        changes = route.method not in reads and not route.only_reads
        if changes and route.access is not Access.OPEN:
            assert route.access is not Access.VIEWER, f"a viewer changes something: {route.path}"


async def test_refusals_say_what_is_missing_and_nothing_secret(guarded):
    async with aiohttp.ClientSession() as session:
        for headers, challenge in (
            ({}, 'Bearer realm="pubsubflow"'),
            ({"Authorization": "Basic cHNmOng="}, 'Bearer realm="pubsubflow"'),
            (bearer("psf_wrong"), 'Bearer realm="pubsubflow", error="invalid_token"'),
        ):
            async with session.get(guarded.url + "/api/v1/runs", headers=headers) as response:
                assert response.status == HTTPStatus.UNAUTHORIZED
                assert response.headers["WWW-Authenticate"] == challenge
                assert response.content_type == "application/problem+json"
                assert "psf_wrong" not in await response.text()
        viewer = bearer(guarded.tokens[Role.VIEWER])
        path = "/api/v1/dags/d/runs"
        async with session.post(guarded.url + path, headers=viewer) as response:
            assert response.status == HTTPStatus.FORBIDDEN
            assert 'scope="operator"' in response.headers["WWW-Authenticate"]
            detail = (await response.json())["detail"]
            assert "role operator" in detail
            assert "'the-viewer' has the role viewer" in detail


async def test_an_emitter_posts_all_of_its_datasets_or_nothing(guarded):
    emitter = {"headers": bearer(guarded.tokens[Role.EMITTER])}
    path = "/api/v1/datasets/events"
    mine, other = {"dataset": "s3://lake/orders"}, {"dataset": "s3://bank/orders"}
    refused = await guarded.post(path, [mine, other, mine], status=403, **emitter)
    assert (refused["index"], refused["field"]) == (1, "dataset")
    assert (await guarded.get(path))["items"] == []
    assert len((await guarded.post(path, [mine, mine], **emitter))["ids"]) == 2
    reply = {"specversion": "1.0", "id": "1", "source": "/x", "type": "t"}
    events = [{**reply, "subject": each["dataset"]} for each in (mine, other)]
    kind = {"Content-Type": "application/cloudevents-batch+json"}
    headers = {"headers": {**emitter["headers"], **kind}}
    refused = await guarded.post("/api/v1/cloudevents", events, status=403, **headers)
    assert (refused["index"], refused["field"]) == (1, "subject")
    await guarded.post("/api/v1/cloudevents", events[:1], **headers)
    assert len((await guarded.get(path))["items"]) == 3


async def test_an_emitters_idempotency_key_is_its_own(guarded):
    path, event = "/api/v1/datasets/events", {"dataset": "s3://lake/orders"}
    key = {"Idempotency-Key": "k"}
    first = await guarded.post(path, event, headers=key)
    emitter = {"headers": {**key, **bearer(guarded.tokens[Role.EMITTER])}}
    second = await guarded.post(path, event, **emitter)
    assert second["ids"] != first["ids"]
    assert (await guarded.post(path, event, status=200, **emitter))["ids"] == second["ids"]


async def test_without_tokens_this_machine_needs_none_but_no_proxy_gets_in(harness):
    await harness.get("/api/v1/runs", headers=bearer("psf_of_another_server"))
    for name in ("X-Forwarded-For", "Via", "Forwarded"):
        refused = await harness.get("/api/v1/runs", headers={name: "1.2.3.4"}, status=403)
        assert "tokens create" in refused["detail"]
    await harness.get("/healthz", headers={"X-Forwarded-For": "1.2.3.4"})


async def test_the_first_token_closes_the_server_and_its_end_opens_nothing(harness):
    made = await make(harness, "first", "admin")
    assert made["token"].startswith("psf_")
    assert made["created_by"] == "local"
    await harness.get("/api/v1/runs", status=401)
    mine = {"headers": bearer(made["token"])}
    assert "token" not in (await harness.get("/api/v1/tokens", **mine))["items"][0]
    gone = await harness.request("DELETE", "/api/v1/tokens/first", **mine)
    assert gone["state"] == "revoked"
    await harness.get("/api/v1/runs", status=401, **mine)
    await harness.get("/api/v1/runs", status=401)
    await harness.get("/healthz")


async def test_the_daemons_own_token_does_everything_and_is_another_at_each_start(serve, guarded):
    own = guarded.api.own_token
    await guarded.get("/api/v1/audit", headers=bearer(own))
    async with serve() as (other, _):
        assert other.own_token != own
        assert await status(guarded, "GET", "/api/v1/runs", own, url=other.url) == 401


async def test_tokens_have_names_limits_and_an_end(guarded):
    await make(guarded, "ci", "operator")
    taken = await guarded.post("/api/v1/tokens", {"name": "ci", "role": "viewer"}, status=409)
    assert taken["field"] == "name"
    for wrong in (
        {"name": "a b", "role": "viewer"},
        {"name": "e", "role": "emitter"},
        {"name": "e", "role": "root"},
        {"name": "e", "role": "viewer", "datasets": ["s3://x"]},
        {"name": "e", "role": "viewer", "expires_at": "2020-01-01T00:00:00Z"},
        {"name": "e", "role": "viewer", "expires_at": "2040-01-01T00:00:00"},
    ):
        await guarded.post("/api/v1/tokens", wrong, status=422)
    await guarded.request("DELETE", "/api/v1/tokens/ci")
    again = await make(guarded, "ci", "viewer", expires_at="2040-01-01T00:00:00+02:00")
    assert again["expires_at"] == "2039-12-31T22:00:00Z"
    assert (await guarded.request("DELETE", f"/api/v1/tokens/{again['id']}"))["name"] == "ci"
    await guarded.request("DELETE", "/api/v1/tokens/ci", status=404)
    first = await guarded.get("/api/v1/tokens?limit=4")
    rest = await guarded.get(f"/api/v1/tokens?limit=4&after={first['next']}")
    names = [each["name"] for each in first["items"] + rest["items"]]
    assert names == ["ci", "ci", "the-admin", "the-operator", "the-emitter", "the-viewer"]


async def test_an_expired_token_is_refused_and_shown_as_such(guarded, database):
    made = await make(guarded, "short", "viewer", expires_at="2040-01-01T00:00:00Z")
    assert await status(guarded, "GET", "/api/v1/runs", made["token"]) == 200
    async with database.connection() as connection:
        await connection.execute(
            "UPDATE token SET expires_at = now() - interval '1 s' WHERE name = 'short'"
        )
    await guarded.api._tokens.load()
    assert await status(guarded, "GET", "/api/v1/runs", made["token"]) == 401
    shown = {each["name"]: each for each in (await guarded.get("/api/v1/tokens"))["items"]}
    assert shown["short"]["state"] == "expired"
    assert shown["short"]["used_at"]  # noted when tokens were read


async def test_what_is_made_or_revoked_on_one_daemon_holds_on_all(serve, guarded):
    async with serve() as (other, _):
        made = await make(guarded, "new", "viewer")
        assert await status(guarded, "GET", "/api/v1/runs", made["token"], other.url) == 200
        await guarded.load(dag("d", task("work")))
        run_id = await guarded.start("d")
        follow = f"{other.url}/api/v1/runs/{run_id}/tasks/work/logs?follow=true"
        with anyio.fail_after(PATIENCE_SECONDS):
            async with (
                aiohttp.ClientSession(headers=bearer(made["token"])) as session,
                session.get(follow) as following,
            ):
                assert following.status == 200
                await guarded.request("DELETE", "/api/v1/tokens/new")
                with pytest.raises(aiohttp.ClientError):  # what is streamed breaks off
                    await following.read()
        assert await status(guarded, "GET", "/api/v1/runs", made["token"], other.url) == 401
        assert await status(guarded, "GET", "/api/v1/runs", made["token"]) == 401


async def test_revoking_the_own_token_is_answered(guarded):
    made = await make(guarded, "mine", "admin")
    gone = await guarded.request("DELETE", "/api/v1/tokens/mine", headers=bearer(made["token"]))
    assert gone["state"] == "revoked"


class Silent:
    """Bells that nothing rings."""

    @asynccontextmanager
    async def on(self, *_):
        raise AssertionError("nobody follows here")
        yield


async def test_every_token_is_refused_while_tokens_cannot_be_checked(database):
    keys = TokenCache(
        TokenStore(database), SessionStore(database), Silent(), always=False, publish=lambda: None
    )
    assert keys.required
    made = await TokenStore(database).create("t", Role.VIEWER, by="test")
    assert (await keys.authenticate(made.token)).name == "t"
    keys._read_at -= 61
    with pytest.raises(StoreUnavailable, match="Postgres"):
        await keys.authenticate(made.token)
    assert (await keys.authenticate(keys.own)).role is Role.ADMIN


async def test_a_flood_of_wrong_tokens_asks_the_database_little(database):
    keys = TokenCache(
        TokenStore(database), SessionStore(database), Silent(), always=True, publish=lambda: None
    )
    loads = 0
    load = keys.load

    async def counted():
        nonlocal loads
        loads += 1
        await load()

    keys.load = counted
    async with anyio.create_task_group() as group:
        for number in range(200):
            group.start_soon(keys.authenticate, f"psf_{number}")
    assert loads <= 2


async def test_host_names_are_checked_only_where_no_token_is_required(guarded):
    named = {"headers": {"Host": "psf.example.com"}}
    await guarded.get("/api/v1/runs", **named)
    await guarded.get("/healthz", **named)
    page = {"Host": "psf.example.com", "Origin": "https://psf.example.com"}
    await guarded.get("/api/v1/runs", headers=page)
    page["Origin"] = "https://evil.example"
    await guarded.get("/api/v1/runs", headers=page, status=403)
    await guarded.get("/healthz", headers=page, status=403)


async def test_every_answer_carries_the_headers_of_a_careful_server(guarded):
    for path in ("/healthz", "/api/v1/runs", "/api/v1/nothing", "/api/v1/dags/none"):
        async with guarded.session.get(guarded.url + path) as response:
            headers = response.headers
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Cache-Control"]
            assert headers["Referrer-Policy"] == "no-referrer"
            assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
            assert headers["Server"] == "pubsubflow"
            assert "Access-Control-Allow-Origin" not in headers
            assert "Strict-Transport-Security" not in headers
    headers = {"Origin": guarded.url, "Access-Control-Request-Method": "GET"}
    async with guarded.session.options(guarded.url + "/api/v1/runs", headers=headers) as response:
        assert response.status == HTTPStatus.METHOD_NOT_ALLOWED


async def test_the_record_says_who_did_what_and_how_it_ended(guarded):
    await guarded.load(dag("d", task("work")))
    operator = {"headers": bearer(guarded.tokens[Role.OPERATOR])}
    await guarded.request("PATCH", "/api/v1/dags/d", json={"paused": True}, **operator)
    await guarded.request("PATCH", "/api/v1/dags/none", json={"paused": True}, status=404)
    await guarded.post("/api/v1/datasets/events", {"dataset": "s3://lake/orders"}, **operator)
    await guarded.get("/api/v1/runs")
    viewer = bearer(guarded.tokens[Role.VIEWER])
    proxied = {**viewer, "X-Forwarded-For": "6.6.6.6, 203.0.113.7"}
    await guarded.post("/api/v1/dags/d/runs", status=403, headers=proxied)
    made = await make(guarded, "new", "viewer")
    own = bearer(guarded.api.own_token)
    await guarded.request("DELETE", f"/api/v1/tokens/{made['id']}", headers=own)
    kept = (await guarded.get("/api/v1/audit"))["items"]
    reply = [(each["asker"], each["action"], each["object"], each["status"]) for each in kept]
    assert reply == [
        ("local", "DELETE /api/v1/tokens/{id}", "new", 200),
        ("the-admin", "POST /api/v1/tokens", "new", 201),
        ("the-viewer", "POST /api/v1/dags/{dag_id}/runs", "d", 403),
        ("the-admin", "PATCH /api/v1/dags/{dag_id}", "none", 404),
        ("the-operator", "PATCH /api/v1/dags/{dag_id}", "d", 200),
    ]
    assert [each["remote"] for each in kept[1:3]] == ["127.0.0.1", "203.0.113.7 via 127.0.0.1"]
    page = await guarded.get("/api/v1/audit?limit=1&asker=the-admin")
    rest = await guarded.get(f"/api/v1/audit?asker=the-admin&after={page['next']}")
    assert [each["object"] for each in page["items"] + rest["items"]] == ["new", "none"]
    assert guarded.tokens[Role.ADMIN] not in str(kept)


async def test_what_cannot_be_recorded_is_not_done(guarded, database):
    await guarded.load(dag("d", task("work")))
    async with database.connection() as connection:
        await connection.execute("ALTER TABLE audit RENAME TO gone")
    await guarded.request("PATCH", "/api/v1/dags/d", json={"paused": True}, status=500)
    assert not (await guarded.get("/api/v1/dags/d"))["paused"]


async def test_a_run_and_the_entry_that_says_who_started_it_are_one_transaction(guarded, database):
    await guarded.load(dag("d", task("work")))
    async with database.connection() as connection:
        await connection.execute("ALTER TABLE audit RENAME TO gone")
    await guarded.request("POST", "/api/v1/dags/d/runs", json={}, status=500)
    assert (await guarded.get("/api/v1/runs"))["items"] == []
    async with database.connection() as connection:
        await connection.execute("ALTER TABLE gone RENAME TO audit")
    run = (await guarded.post("/api/v1/dags/d/runs", {"run_key": "k"}, status=201))["run_id"]
    await guarded.post("/api/v1/dags/d/runs", {"run_key": "k"}, status=201)
    await guarded.request("POST", "/api/v1/dags/d/runs", json={"preset": "no"}, status=422)
    await guarded.request("POST", "/api/v1/dags/d/call", json={}, status=422)
    kept = (await guarded.get("/api/v1/audit"))["items"]
    reply = [(each["action"].rpartition("/")[2], each["object"], each["status"]) for each in kept]
    assert reply == [("call", "d", 422), ("runs", "d", 422), ("runs", "d", 201), ("runs", "d", 201)]
    assert (await guarded.get("/api/v1/runs"))["items"][0]["run_id"] == run


async def test_a_flood_of_refusals_fills_no_disk(database):
    now = 0.0
    audit = AuditLog(database)
    recorder = AuditRecorder(audit, keep=timedelta(days=1), now=lambda: now)
    for _ in range(100):
        for number in range(100):
            entry = AuditEntry(
                principal="anonymous", action="POST /x", object=str(number), status=401
            )
            await recorder.record_refusal(entry)
    assert len((await audit.page(limit=1000)).items) == 30
    now = 61.0
    await recorder.record_refusal(AuditEntry(principal="anonymous", action="POST /y", status=401))
    kept = (await audit.page(limit=1000)).items
    assert len(kept) == 62
    assert sum(each.times for each in kept) == 10_001
    others = next(each for each in kept if each.action == "other refused attempts")
    assert others.times == 7000


async def test_the_audit_log_is_kept_for_the_configured_time(database):
    audit = AuditLog(database)
    for _ in range(2):
        await audit.record(AuditEntry(principal="a", action="b"))
    async with database.connection() as connection:
        await connection.execute(
            "UPDATE audit SET at = now() - interval '2 d' WHERE id = (SELECT min(id) FROM audit)"
        )
    await audit.prune(timedelta(days=1))
    assert len((await audit.page(limit=10)).items) == 1


async def test_beyond_this_machine_it_takes_a_token(manager, database, bus, harness):
    wide = ApiSettings(port=0, host="0.0.0.0")
    with pytest.raises(ConfigError, match=r"--host 0\.0\.0\.0.*tokens create"):
        await api_on(manager, database, bus, wide).run(anyio.Event())
    past = datetime.now(UTC) - timedelta(days=2)
    await TokenStore(database).create("old", Role.ADMIN, expires_at=past, by="test")
    with pytest.raises(ConfigError, match="tokens create"):
        await api_on(manager, database, bus, wide).run(anyio.Event())
    made = await TokenStore(database).create(f"t-{uuid4()}", Role.ADMIN, by="test")
    stopping = anyio.Event()
    api = api_on(manager, database, bus, wide)
    async with anyio.create_task_group() as group:
        await group.start(api.run, stopping)
        harness.url = api.url.replace("0.0.0.0", "127.0.0.1")
        await harness.get("/api/v1/runs", status=401)
        await harness.get("/healthz")
        named = {**bearer(made.token), "Host": "psf.example.com"}
        await harness.get("/api/v1/runs", headers=named)
        stopping.set()
