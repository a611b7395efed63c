"""Routes by which a browser signs in at the provider: away to it, and back with a code."""

import hmac
import html
import time
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import anyio
import structlog
from aiohttp import hdrs, web
from msgspec import Struct

from pubsubflow.api.auth.audit import AuditRecorder
from pubsubflow.api.auth.middleware import (
    is_over_tls,
    remote,
    session_cookie,
    set_session_cookie,
)
from pubsubflow.api.auth.token_cache import TokenCache
from pubsubflow.api.http import routing
from pubsubflow.api.http.problems import BadRequest
from pubsubflow.api.http.requests import NoQuery
from pubsubflow.api.http.responses import json_response
from pubsubflow.api.http.routing import Access, MediaBody, Route
from pubsubflow.api.oidc.attempt import ATTEMPT_SECONDS, HOME, SignInAttempt
from pubsubflow.api.oidc.provider import Provider
from pubsubflow.api.oidc.settings import OidcSettings, rights_of
from pubsubflow.api.settings import ApiSettings
from pubsubflow.errors import StoreUnavailable
from pubsubflow.model.api.auth import SignInMethods
from pubsubflow.model.auth import ANONYMOUS, Grant, Role, name_of_person
from pubsubflow.model.recent import Recent
from pubsubflow.model.wire.audit_entries import AuditEntry
from pubsubflow.store.auth import SessionStore

log = structlog.get_logger(__name__)

PATH = "/auth/"
_BACK = "/auth/callback"
_SIGN_IN = "GET /auth/callback"
_MAX_SIGN_INS = 8
_MAX_USED = 10_000
_MAX_NAME = 254
_HTML = MediaBody(("text/html",), "A page for the person, or a redirection.")
_REFUSED = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Not signed in · pubsubflow</title>
<h1>Not signed in</h1><p>{reason}</p><p><a href="/ui/">Back to the page</a></p></html>
"""


class Person(Struct, frozen=True):
    """Who has signed in, and what that person may do.

    Attributes:
        name: As the audit log has it, such as `oidc:alice@example.org`.
    """

    name: str
    role: Role
    grants: tuple[Grant, ...]


def person_of(claims: Mapping[str, Any], settings: OidcSettings) -> Person:
    """Return the person that claims are about.

    Raises:
        BadRequest: None of the groups has a role here (403).
    """
    given = claims.get(settings.name_claim)
    if settings.name_claim == "email" and claims.get("email_verified") is False:
        # Whoever may write an address into a profile could take the name of another.
        given = None
    fits = isinstance(given, str) and 0 < len(given) <= _MAX_NAME
    name = name_of_person(str(given if fits else claims["sub"]))
    found = claims.get(settings.groups_claim)
    groups = [found] if isinstance(found, str) else found if isinstance(found, list) else []
    texts = [
        text for each in groups if isinstance(each, str) for text in settings.roles.get(each, ())
    ]
    if not texts:
        known = f"{len(groups)} groups" if groups else f"no claim {settings.groups_claim!r}"
        raise BadRequest(
            f"{name} has signed in at the provider, with {known}, of which none has a role here: "
            "an admin of this server adds one of them to [oidc.roles], or changes the groups there",
            status=403,
        )
    role, grants = rights_of(tuple(texts))
    return Person(name, role, grants)


class SignInMethodRoutes:
    """Handler of `GET /api/v1/session`.

    Args:
        oidc: The name of the provider; None without one.
        token_cache: Knows whether one has to sign in.
    """

    def __init__(self, oidc: str | None, token_cache: TokenCache) -> None:
        self._oidc = oidc
        self._token_cache = token_cache

    def routes(self) -> Iterable[Route]:
        """Return the route."""
        yield routing.get(
            "/api/v1/session",
            self.methods,
            access=Access.OPEN,
            query=NoQuery,
            responses={200: SignInMethods},
        )

    async def methods(self, _: web.Request) -> web.Response:
        """Return how a browser may sign in, before it has."""
        return json_response(SignInMethods(oidc=self._oidc, sign_in=self._token_cache.required))


class OidcRoutes:
    """Handlers of `/auth/`; the description of the API leaves them out.

    Args:
        oidc: The provider, and the roles of groups.
        settings: How long a session lasts.
        sessions: The stored sessions.
        token_cache: The live sessions; it announces changes.
        audit: Records who signs in.
        clock: Returns seconds since 1970.

    Raises:
        ConfigError: The library is not installed, or the secret cannot be read.
    """

    def __init__(
        self,
        oidc: OidcSettings,
        settings: ApiSettings,
        sessions: SessionStore,
        token_cache: TokenCache,
        audit: AuditRecorder,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._oidc = oidc
        self._provider = Provider(oidc, clock=clock) if oidc.issuer else None
        self._seconds = settings.session_seconds
        self._tls = settings.tls_cert is not None
        self._sessions = sessions
        self._token_cache = token_cache
        self._audit = audit
        self._clock = clock
        self._limit = anyio.Semaphore(_MAX_SIGN_INS)
        self._used: Recent[str, bool] = Recent(_MAX_USED)

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        for path, handler in (("/auth/sign-in", self.leave), (_BACK, self.come_back)):
            yield routing.get(
                path, handler, access=Access.OPEN, responses={200: _HTML}, allow_head=False
            )

    @property
    def name(self) -> str | None:
        """The provider, as people call it; None without one."""
        return self._oidc.name if self._provider else None

    async def leave(self, request: web.Request) -> web.StreamResponse:
        """Send a browser to the provider."""
        try:
            provider = self._found()
            attempt = SignInAttempt.begin(request.query.get("next"), self._clock())
            query = {
                "redirect_uri": self._url(request) + _BACK,
                "state": attempt.state,
                "nonce": attempt.nonce,
                "code_challenge": attempt.challenge,
                "code_challenge_method": "S256",
            }
            response = _redirect(await provider.authorization_url(query))
        except BadRequest as error:
            return self._refusal(request, error)
        # Lax: it is sent when the provider's page leads back, as a strict one is not.
        response.set_cookie(
            _cookie(request),
            attempt.to_cookie(),
            max_age=int(ATTEMPT_SECONDS),
            path=PATH,
            httponly=True,
            samesite="Lax",
            secure=self._is_secure(request),
        )
        return response

    async def come_back(self, request: web.Request) -> web.StreamResponse:
        """Sign a browser in by the code with which it comes back from the provider."""
        address = remote(request)
        attempt = SignInAttempt.from_cookie(request.cookies.get(_cookie(request), ""))
        try:
            async with self._limit:
                person = await self._person(request, attempt)
                session, secret = await self._sessions.create_person(
                    *(person.name, person.role, person.grants),
                    seconds=self._seconds,
                    agent=request.headers.get(hdrs.USER_AGENT),
                    remote=address,
                )
        except BadRequest as error:
            entry = AuditEntry(
                principal=ANONYMOUS, remote=address, action=_SIGN_IN, status=error.status
            )
            await self._audit.record_refusal(entry)
            return self._refusal(request, error)
        except StoreUnavailable as error:
            return self._refusal(request, BadRequest(str(error), status=503))
        entry = AuditEntry(
            principal=session.name, remote=address, action=_SIGN_IN, object=str(session.id)
        )
        number = await self._audit.begin(entry)
        await self._token_cache.announce_change()
        await self._audit.end(number, HTTPStatus.SEE_OTHER, None)
        log.info("oidc.signed_in", person=person.name, role=person.role)
        response = _redirect(attempt.to if attempt else HOME)
        self._forget(request, response)
        secure = self._is_secure(request)
        set_session_cookie(request, response, secret, seconds=self._seconds, secure=secure)
        return response

    async def sign_out_url(self, request: web.Request) -> str | None:
        """Return where a person signs out at the provider too; None if that is not offered."""
        if self._provider is None:
            return None
        return await self._provider.sign_out_url(self._url(request) + HOME)

    async def _person(self, request: web.Request, attempt: SignInAttempt | None) -> Person:
        """Return who comes back.

        Raises:
            BadRequest: The provider refuses, is away, or this is not what was begun here.
        """
        provider, query = self._found(), request.query
        state = query.get("state", "")
        if attempt is None or not hmac.compare_digest(state.encode(), attempt.state.encode()):
            raise BadRequest(
                "this sign-in was not begun in this browser, or is over: sign in again", status=400
            )
        # The browser drops the cookie by then, unless its clock or somebody keeps it.
        if attempt.until < self._clock():
            raise BadRequest("signing in took more than ten minutes: sign in again", status=400)
        if self._used.get(state):
            raise BadRequest("this sign-in was completed already: sign in again", status=400)
        # Before the code is exchanged: two requests at once must not both get a session.
        self._used.put(state, True)  # noqa: FBT003 - a value of a mapping
        if "error" in query:
            raise BadRequest(_reason(query.get("error", "")), status=403)
        code = query.get("code")
        if not code:
            raise BadRequest("the provider sent no code: sign in again", status=400)
        claims = await provider.claims(
            code, attempt.verifier, self._url(request) + _BACK, attempt.nonce
        )
        return person_of(claims, self._oidc)

    def _found(self) -> Provider:
        if self._provider is None:
            raise BadRequest("this server has no provider: sign in with a token", status=404)
        return self._provider

    def _url(self, request: web.Request) -> str:
        """Return the URL of this installation, as the browser knows it."""
        if self._oidc.public_url:
            return self._oidc.public_url.rstrip("/")
        host = request.headers.get("Host", "localhost")
        return f"{'https' if self._is_secure(request) else 'http'}://{host}"

    def _is_secure(self, request: web.Request) -> bool:
        if urlsplit(self._oidc.public_url).scheme == "https":
            return True
        return is_over_tls(request, tls=self._tls)

    def _refusal(self, request: web.Request, error: BadRequest) -> web.Response:
        """Return a page that says what is wrong, or a problem document for programs."""
        if "text/html" not in request.headers.get("Accept", ""):
            raise error
        text = _REFUSED.format(reason=html.escape(str(error)))
        response = web.Response(text=text, status=error.status, content_type="text/html")
        self._forget(request, response)
        return response

    @staticmethod
    def _forget(request: web.Request, response: web.Response) -> None:
        name = _cookie(request)
        response.set_cookie(name, "", max_age=0, path=PATH, httponly=True, samesite="Lax")


def _cookie(request: web.Request) -> str:
    return session_cookie(request).replace("psf-session", "psf-sign-in")


def _redirect(url: str) -> web.Response:
    return web.Response(status=HTTPStatus.SEE_OTHER, headers={"Location": url})


def _reason(error: str) -> str:
    """Return what an error of the provider means here (RFC 6749, §4.1.2.1)."""
    known = {
        "access_denied": "the provider says that you declined, or may not sign in here",
        "invalid_scope": "the provider does not know one of oidc.scopes: correct them",
        "unauthorized_client": "the provider does not allow codes to this client: change it there",
        "login_required": "the provider wants you to sign in there first",
    }
    return known.get(error, f"the provider answers {error[:80]!r}")
