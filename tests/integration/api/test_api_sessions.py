"""Browsers: signing in and out, what sessions may do, and what pages of other sites may not."""

from datetime import UTC, datetime, timedelta
from http.cookies import SimpleCookie

import aiohttp
import pytest

from pubsubflow.api import ApiSettings
from pubsubflow.model.auth import Role
from pubsubflow.store.auth import TokenStore
from support.api import ApiHarness

pytestmark = pytest.mark.anyio


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


class Browser:
    """Sends what a page of the server itself sends; keeps cookies as a browser does."""

    def __init__(self, url, session):
        self.url = url
        self.session = session
        self.cookies = {}

    async def __call__(self, method, path, body=None, *, status=200, **headers):
        given = {"Sec-Fetch-Site": "same-origin", **headers}
        if method != "GET":
            given.setdefault("Origin", self.url)
        if self.cookies:
            given["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        async with self.session.request(
            method, self.url + path, json=body, headers={k: v for k, v in given.items() if v}
        ) as response:
            text = await response.text()
            assert response.status == status, text
            self.set_cookie = response.headers.get("Set-Cookie", "")
            for name, morsel in SimpleCookie(self.set_cookie).items():
                self.cookies[name] = morsel.value
                if morsel["max-age"] == "0":
                    del self.cookies[name]
            return await response.json() if text else None


@pytest.fixture
async def guarded(serve, database, bus):
    """A server that demands tokens, with one of each role but emitter."""
    store = TokenStore(database)
    roles = (Role.VIEWER, Role.OPERATOR, Role.ADMIN)
    made = {role: await store.create(f"the-{role}", role, by="test") for role in roles}
    async with serve() as (api, _), aiohttp.ClientSession() as session:
        harness = ApiHarness(api.url, session, bus, database)
        harness.api = api
        harness.tokens = {role: each.token for role, each in made.items()}
        harness.admin = {"headers": bearer(made[Role.ADMIN].token)}
        yield harness


@pytest.fixture
def browser(guarded):
    return Browser(guarded.url, guarded.session)


async def sign_in(browser, token):
    return await browser("POST", "/api/v1/session", {"token": token}, status=201)


async def test_a_token_becomes_a_cookie_that_no_script_reads(guarded, browser):
    await browser("GET", "/api/v1/me", status=401)
    me = await sign_in(browser, guarded.tokens[Role.OPERATOR])
    assert (me["name"], me["role"], me["via"]) == ("the-operator", "operator", "session")
    port = guarded.url.rpartition(":")[2]
    (name,) = browser.cookies
    assert name == f"psf-session-{port}"
    cookie = browser.set_cookie
    for part in ("HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200"):
        assert part in cookie
    assert "Secure" not in cookie
    assert guarded.tokens[Role.OPERATOR] not in cookie
    assert await browser("GET", "/api/v1/me") == me
    await browser("POST", "/api/v1/datasets/events", {"dataset": "s3://lake/a"}, status=202)
    await browser("GET", "/api/v1/tokens", status=403)
    async with guarded.database.connection() as connection:
        (row,) = await connection.fetch("SELECT digest, link FROM session")
    assert len(row["digest"]) == 32
    assert row["link"] is None


async def test_behind_tls_the_cookie_is_secure(guarded, browser):
    body = {"token": guarded.tokens[Role.VIEWER]}
    await browser("POST", "/api/v1/session", body, status=201, **{"X-Forwarded-Proto": "https"})
    assert "Secure" in browser.set_cookie


async def test_wrong_tokens_and_codes_are_refused_and_recorded(guarded, browser):
    for body in ({"token": "psf_wrong"}, {"code": "psf_wrong"}):
        refused = await browser("POST", "/api/v1/session", body, status=401)
        assert "psf_wrong" not in refused["detail"]
    for body in ({}, {"token": "a", "code": "b"}, {"token": ""}):
        await browser("POST", "/api/v1/session", body, status=422)
    assert browser.cookies == {}
    entries = (await guarded.get("/api/v1/audit", **guarded.admin))["items"]
    assert {(each["asker"], each["action"], each["status"]) for each in entries} == {
        ("anonymous", "POST /api/v1/session", 401)
    }


async def test_a_link_signs_in_once(guarded, browser):
    """As the one who made it; the code stands where no log and no preview gets it."""
    operator = {"headers": bearer(guarded.tokens[Role.OPERATOR])}
    link = await guarded.post("/api/v1/session/links", {}, status=201, **operator)
    path, _, code = link["path"].partition("#sign-in=")
    assert path == "/ui/"
    assert link["name"] == "the-operator"
    left = datetime.fromisoformat(link["expires_at"]) - datetime.now(UTC)
    assert timedelta(minutes=4) < left < timedelta(minutes=6)
    assert (await guarded.get("/api/v1/sessions", **guarded.admin))["items"] == []
    me = await browser("POST", "/api/v1/session", {"code": code}, status=201)
    assert (me["name"], me["role"]) == ("the-operator", "operator")
    another = Browser(guarded.url, guarded.session)
    await another("POST", "/api/v1/session", {"code": code}, status=401)
    named = {"person": "eve"}
    await guarded.post("/api/v1/session/links", named, status=422, **operator)


async def test_an_expired_link_signs_nobody_in(guarded, browser):
    link = await guarded.post("/api/v1/session/links", {}, status=201, **guarded.admin)
    async with guarded.database.connection() as connection:
        await connection.execute("UPDATE session SET expires_at = now() - interval '1 second'")
    code = link["path"].partition("=")[2]
    await browser("POST", "/api/v1/session", {"code": code}, status=401)


async def test_the_owner_signs_in_without_a_token_and_is_named(guarded, browser):
    own = {"headers": bearer(guarded.api.own_token)}
    await guarded.post("/api/v1/session/links", {"person": "a b"}, status=422, **own)
    link = await guarded.post("/api/v1/session/links", {"person": "ann"}, status=201, **own)
    code = link["path"].partition("=")[2]
    me = await browser("POST", "/api/v1/session", {"code": code}, status=201)
    assert (me["name"], me["role"]) == ("local:ann", "admin")
    await browser("POST", "/api/v1/tokens", {"name": "new", "role": "viewer"}, status=201)
    entries = (await guarded.get("/api/v1/audit?asker=local:ann", **guarded.admin))["items"]
    assert [(each["action"], each["status"]) for each in entries] == [
        ("POST /api/v1/tokens", 201),
        ("POST /api/v1/session", 201),
    ]


async def test_signing_out_ends_the_session_here(guarded, browser):
    await sign_in(browser, guarded.tokens[Role.VIEWER])
    kept = dict(browser.cookies)
    await browser("DELETE", "/api/v1/session", status=204)
    assert browser.cookies == {}
    browser.cookies = kept
    refused = await browser("GET", "/api/v1/runs", status=401)
    assert "sign in again" in refused["detail"]
    assert browser.cookies == {}  # the browser forgets it


async def test_sessions_are_listed_and_revoked_by_their_holder_and_by_admins(guarded, browser):
    await sign_in(browser, guarded.tokens[Role.VIEWER])
    other = Browser(guarded.url, guarded.session)
    await sign_in(other, guarded.tokens[Role.OPERATOR])
    (own,) = (await browser("GET", "/api/v1/sessions"))["items"]
    assert own["name"] == "the-viewer"
    assert "digest" not in own
    listed = (await guarded.get("/api/v1/sessions", **guarded.admin))["items"]
    assert [each["name"] for each in listed] == ["the-operator", "the-viewer"]
    await browser("DELETE", f"/api/v1/sessions/{listed[0]['id']}", status=404)
    await browser("DELETE", "/api/v1/sessions/none", status=404)
    await guarded.request("DELETE", f"/api/v1/sessions/{own['id']}", **guarded.admin)
    await browser("GET", "/api/v1/runs", status=401)
    await other("GET", "/api/v1/runs")


async def test_a_session_ends_with_its_token_and_has_its_role(serve, guarded, browser):
    """On every daemon; a stream that is open ends at once."""
    await sign_in(browser, guarded.tokens[Role.VIEWER])
    async with serve() as (second, _):
        there = Browser(second.url, guarded.session)
        # The name of the cookie has the port: another daemon is shown it under its own name.
        there.cookies = {
            f"psf-session-{second.url.rpartition(':')[2]}": next(iter(browser.cookies.values()))
        }
        assert (await there("GET", "/api/v1/me"))["name"] == "the-viewer"
        cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
        stream = guarded.url + "/api/v1/stream"
        async with guarded.session.get(stream, headers={"Cookie": cookie}) as response:
            assert response.status == 200
            await guarded.request("DELETE", "/api/v1/tokens/the-viewer", **guarded.admin)
            with pytest.raises((aiohttp.ClientError, ConnectionError)):
                await response.read()
        await browser("GET", "/api/v1/me", status=401)
    assert browser.cookies == {}


async def test_a_token_goes_before_a_cookie(guarded, browser):
    await sign_in(browser, guarded.tokens[Role.VIEWER])
    headers = bearer(guarded.tokens[Role.ADMIN])
    assert (await browser("GET", "/api/v1/me", **headers))["name"] == "the-admin"
    await browser("GET", "/api/v1/me", status=401, **bearer("psf_wrong"))


async def test_a_session_from_before_the_first_token_ends_with_it(limited):
    async with limited(session_seconds=60) as harness:
        browser = Browser(harness.url, harness.session)
        assert (await browser("GET", "/api/v1/me"))["via"] == "none"
        # Any token would be right where none is needed: none makes a session.
        await browser("POST", "/api/v1/session", {"token": "psf_any"}, status=401)
        link = await harness.post("/api/v1/session/links", {"person": "ann"}, status=201)
        code = link["path"].partition("=")[2]
        me = await browser("POST", "/api/v1/session", {"code": code}, status=201)
        assert (me["name"], me["sign_in"]) == ("local:ann", False)
        assert "Max-Age=60" in browser.set_cookie
        await harness.post("/api/v1/tokens", {"name": "first", "role": "admin"}, status=201)
        await browser("GET", "/api/v1/runs", status=401)


FOREIGN = (
    {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
    {"Origin": "null", "Sec-Fetch-Site": "cross-site"},
    {"Origin": "", "Sec-Fetch-Site": "cross-site"},
    {"Origin": "", "Sec-Fetch-Site": "same-site"},  # another port of this host
    {"Origin": "http://127.0.0.1:1", "Sec-Fetch-Site": "same-site"},
)


async def test_pages_of_other_sites_can_do_nothing(guarded, browser):
    await sign_in(browser, guarded.tokens[Role.ADMIN])
    requests = (
        ("POST", "/api/v1/dags/d/runs", {}),
        ("DELETE", "/api/v1/session", None),
        ("POST", "/api/v1/session", {"token": guarded.tokens[Role.ADMIN]}),
        ("GET", "/api/v1/runs", None),
        ("GET", "/healthz", None),
    )
    for foreign in FOREIGN:
        for method, path, body in requests:
            await browser(method, path, body, status=403, **foreign)
    await browser("GET", "/api/v1/me")


async def test_pages_of_other_sites_can_do_nothing_where_no_token_is_needed(harness):
    browser = Browser(harness.url, harness.session)
    for foreign in FOREIGN:
        await browser("POST", "/api/v1/dags/d/runs", {}, status=403, **foreign)
        await browser("POST", "/api/v1/session/links", {}, status=403, **foreign)
        await browser("GET", "/api/v1/runs", status=403, **foreign)
    await browser("GET", "/api/v1/runs", status=403, Host="evil.example:80", Origin="")
    await browser("POST", "/api/v1/session/links", {}, status=201)


async def test_a_link_from_elsewhere_may_be_followed(harness):
    """What is shown then, the person sees; the page with the link does not."""
    follows = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"}
    browser = Browser(harness.url, harness.session)
    await browser("GET", "/api/v1/runs", **follows, **{"Sec-Fetch-Mode": "navigate"})
    await browser("GET", "/api/v1/runs", status=403, **follows, **{"Sec-Fetch-Mode": "no-cors"})
    framed = {**follows, "Sec-Fetch-Dest": "iframe", "Sec-Fetch-Mode": "navigate"}
    await browser("GET", "/api/v1/runs", status=403, **framed)
    sent = {**follows, "Sec-Fetch-Mode": "navigate", "Origin": ""}
    await browser("POST", "/api/v1/dags/d/runs", {}, status=403, **sent)


async def test_a_change_by_cookie_must_say_where_it_comes_from(guarded, browser):
    await sign_in(browser, guarded.tokens[Role.ADMIN])
    silent = {"Origin": "", "Sec-Fetch-Site": ""}
    refused = await browser("POST", "/api/v1/session/links", {}, status=403, **silent)
    assert "Origin" in refused["detail"]
    await browser("GET", "/api/v1/runs", **silent)
    await browser("POST", "/api/v1/session/links", {}, status=201, **{"Sec-Fetch-Site": ""})


async def test_the_page_is_open_and_the_api_behind_it_is_not(guarded, browser):
    async with guarded.session.get(guarded.url + "/ui/runs") as response:
        assert response.status in (200, 404)  # 404 where the page is not built
        assert "script-src 'self'" in response.headers["Content-Security-Policy"] or (
            response.status == 404
        )
    await browser("GET", "/api/v1/runs", status=401)


async def test_a_session_ends_by_itself(serve, database, bus):
    now = [datetime.now(UTC)]
    async with (
        serve(ApiSettings(port=0, session_seconds=60), now=lambda: now[0]) as (api, _),
        aiohttp.ClientSession() as session,
    ):
        harness = ApiHarness(api.url, session, bus, database)
        own = {"headers": bearer(api.own_token)}
        await harness.post("/api/v1/tokens", {"name": "a", "role": "admin"}, status=201, **own)
        link = await harness.post("/api/v1/session/links", {}, status=201, **own)
        browser = Browser(api.url, session)
        code = link["path"].partition("=")[2]
        await browser("POST", "/api/v1/session", {"code": code}, status=201)
        now[0] += timedelta(seconds=61)
        await browser("GET", "/api/v1/me", status=401)
