"""Signing in by OpenID Connect: at two providers, through all redirects, and what must not work."""

import re
import time
from contextlib import asynccontextmanager
from http.cookies import SimpleCookie
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest

from pubsubflow.api import ApiSettings
from pubsubflow.api.oidc.settings import OidcSettings
from support.api import ApiHarness
from support.oidc import CLIENT, SECRET, tricky_provider
from support.specs import dag, task

pytestmark = pytest.mark.anyio
mock = pytest.importorskip("oidc_provider_mock")
ROLES = {"sales": ("viewer:dag=mine", "operator:dag=mine"), "ops": ("admin",)}


class Browser:
    """Follows redirects and keeps cookies as a browser does."""

    def __init__(self, url, session):
        self.url = url
        self.session = session
        self.cookies = {}
        self.seen = {}

    async def go(self, url, **more):
        """Open an address; return the status, where it leads, and the text."""
        ours = url.startswith(("/", self.url))
        url = self.url + url if url.startswith("/") else url
        headers = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate"}
        headers |= {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"}
        if ours:
            # A navigation from another site: cookies that are strict are not sent.
            sent = {name: value for name, value in self.cookies.items() if "sign-in" in name}
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in sent.items())
        method = more.pop("method", "GET")
        async with self.session.request(
            method, url, headers=headers, allow_redirects=False, **more
        ) as response:
            if ours:
                for line in response.headers.getall("Set-Cookie", ()):
                    for name, morsel in SimpleCookie(line).items():
                        self.cookies[name], self.seen[name] = morsel.value, morsel
                        if morsel["max-age"] == "0":
                            del self.cookies[name]
            return response.status, response.headers.get("Location"), await response.text()

    async def call(self, method, path, status=200):
        headers = {"Sec-Fetch-Site": "same-origin", "Origin": self.url}
        headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        async with self.session.request(method, self.url + path, headers=headers) as response:
            assert response.status == status, await response.text()
            return await response.json() if status != 204 else None


@pytest.fixture
def served(serve, database, bus):
    @asynccontextmanager
    async def serving(issuer, *, client=CLIENT, secret=SECRET, **more):
        oidc = OidcSettings(
            issuer=issuer, client_id=client, client_secret=secret, name="Home", roles=ROLES, **more
        )
        clock = [0.0]
        now = {"oidc_clock": lambda: time.time() + clock[0]}
        async with (
            serve(ApiSettings(port=0), oidc=oidc, **now) as (api, _),
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session,
        ):
            harness = ApiHarness(api.url, session, bus, database)
            harness.browser = Browser(api.url, session)
            harness.clock = clock
            harness.admin = {"headers": {"Authorization": f"Bearer {api.own_token}"}}
            yield harness

    return serving


@pytest.fixture
async def tricky(served):
    async with tricky_provider() as provider, served(provider.url) as harness:
        harness.provider = provider
        yield harness


async def begin(browser, to="/ui/runs"):
    """Go to the provider and return the address that leads back."""
    status, away, _ = await browser.go(f"/auth/sign-in?next={to}")
    assert status == 303
    status, back, _ = await browser.go(away)
    assert status == 302
    return back


async def refused(harness, status):
    """Sign in; return the text of the page that says why it did not work."""
    found, _, text = await harness.browser.go(await begin(harness.browser))
    assert (found, "psf-session" in " ".join(harness.browser.cookies)) == (status, False), text
    return text


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the provider's own
async def test_a_person_signs_in_at_a_provider_and_out(served):
    """The provider is a program of its own: Authlib's server."""
    claims = {"email": "alice@example.org", "groups": ["sales", "x"]}
    users = [mock.User(sub="alice", claims=claims)]
    with mock.run_server_in_thread(user_claims=users) as provider:
        issuer = f"http://localhost:{provider.server_port}"
        async with served(issuer, secret="s") as harness:
            await harness.load(dag("mine", task("t")), dag("foreign", task("t")))
            browser = harness.browser
            assert await browser.call("GET", "/api/v1/session") == {"oidc": "Home", "sign_in": True}
            await browser.call("GET", "/api/v1/me", 401)
            _, away, _ = await browser.go("/auth/sign-in?next=/ui/dags%3Ftag=a")
            assert (await browser.go(away))[0] == 200  # the provider's form
            form = {"sub": "alice", "action": "authorize"}
            status, back, _ = await browser.go(away, method="POST", data=form)
            assert (status, back.startswith(browser.url + "/auth/callback?")) == (302, True)
            status, to, text = await browser.go(back)
            assert (status, to) == (303, "/ui/dags?tag=a"), text
            (name,) = browser.cookies
            cookie = browser.seen[name]
            assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Strict", "/")
            me = await browser.call("GET", "/api/v1/me")
            assert (me["name"], me["role"], me["via"]) == (
                "oidc:alice@example.org",
                "emitter",
                "session",
            )
            assert me["grants"] == ["viewer:dag=mine", "operator:dag=mine"]
            dags = await browser.call("GET", "/api/v1/dags")
            assert [each["dag_id"] for each in dags["items"]] == ["mine"]
            await browser.call("POST", "/api/v1/dags/mine/runs", 201)
            audit = (await harness.get("/api/v1/audit", **harness.admin))["items"]
            assert [each["action"] for each in audit if each["asker"] == me["name"]] == [
                "POST /api/v1/dags/{dag_id}/runs",
                "GET /auth/callback",
            ]
            listed = await browser.call("GET", "/api/v1/sessions")
            assert [each["name"] for each in listed["items"]] == [me["name"]]
            gone = await browser.call("DELETE", "/api/v1/session")
            assert gone["url"].startswith(f"{issuer}/oauth2/end_session?client_id=psf")
            await browser.call("GET", "/api/v1/me", 401)


async def test_an_admin_sees_and_ends_the_sessions_of_people_and_people_their_own(tricky):
    alice, bob = tricky.browser, Browser(tricky.url, tricky.session)
    await alice.go(await begin(alice))
    tricky.provider.claims = {"email": "bob@example.org", "groups": "ops"}
    await bob.go(await begin(bob))
    own = (await alice.call("GET", "/api/v1/sessions"))["items"]
    every = (await bob.call("GET", "/api/v1/sessions"))["items"]
    assert ([each["name"] for each in own], len(every)) == (["oidc:alice@example.org"], 2)
    bobs = next(each["id"] for each in every if "bob" in each["name"])
    await alice.call("DELETE", f"/api/v1/sessions/{bobs}", 404)
    await bob.call("DELETE", f"/api/v1/sessions/{own[0]['id']}")
    await alice.call("GET", "/api/v1/me", 401)
    assert (await bob.call("GET", "/api/v1/me"))["role"] == "admin"


async def test_tokens_that_are_forged_are_refused_and_keys_may_rotate(tricky):
    provider, browser = tricky.provider, tricky.browser
    assert (await browser.go(await begin(browser)))[0] == 303
    browser.cookies.clear()
    provider.unsigned = True
    assert "not valid" in await refused(tricky, 401)
    provider.unsigned = False
    provider.claims["nonce"] = "another"
    assert "nonce" in await refused(tricky, 401)
    del provider.claims["nonce"]
    provider.claims["groups"] = ["unknown"]
    text = await refused(tricky, 403)
    assert "alice@example.org" in text
    assert "[oidc.roles]" in text
    provider.claims["groups"] = ["sales"]
    known = provider.asked.count("/jwks")
    provider.rotate()
    # Within ten seconds keys are not read again, or everybody could make the daemon do so.
    assert "does not list" in await refused(tricky, 401)
    assert provider.asked.count("/jwks") == known
    tricky.clock[0] = 11
    assert (await browser.go(await begin(browser)))[0] == 303
    assert provider.asked.count("/jwks") == known + 1
    refusals = (await tricky.get("/api/v1/audit", **tricky.admin))["items"]
    assert {each["status"] for each in refusals} >= {401, 403, 303}


async def test_a_sign_in_works_once_and_in_its_own_browser(tricky):
    browser, other = tricky.browser, Browser(tricky.url, tricky.session)
    back = await begin(browser)
    # A link that an attacker sends, to sign somebody in as the attacker.
    status, _, text = await other.go(back)
    assert (status, "not begun in this browser" in text) == (400, True)
    kept = dict(browser.cookies)
    assert (await browser.go(back))[0] == 303
    assert [name for name in browser.cookies if "sign-in" in name] == []
    assert (await browser.go(back))[0] == 400
    browser.cookies.update(kept)
    status, _, text = await browser.go(back)
    assert (status, "completed already" in text) == (400, True)
    back = await begin(browser)
    state = parse_qs(urlsplit(back).query)["state"][0]
    assert (await browser.go(back.replace(state, "x")))[0] == 400
    back = await begin(browser)
    status, _, text = await browser.go(re.sub("code=[^&]*", "error=<b>", back))
    assert (status, "<b>" in text) == (403, False)


async def test_a_provider_that_is_away_or_set_up_wrongly_is_named_with_the_remedy(tricky):
    browser, provider = tricky.browser, tricky.provider
    provider.away = True
    status, _, text = await browser.go("/auth/sign-in")
    assert (status, "503" in text) == (502, True)
    provider.away = False
    back = await begin(browser)
    provider.away = True
    assert (await browser.go(back))[0] == 502
    async with tricky.session.get(tricky.url + "/auth/callback") as response:
        assert (response.status, response.content_type) == (400, "application/problem+json")


async def test_without_a_provider_there_is_nothing_to_sign_in_by(harness):
    assert (await harness.get("/api/v1/session"))["oidc"] is None
    await harness.get("/auth/sign-in", status=404)
