"""A provider of OpenID Connect that can be made to misbehave; see also `oidc_provider_mock`."""

import base64
import hashlib
import json
import time
from contextlib import asynccontextmanager
from urllib.parse import urlencode

from aiohttp import web
from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT, SECRET = "psf", "a secret/with:signs"


class TrickyProvider:
    """Signs in whoever comes, and says in ID tokens what it is told to.

    Attributes:
        claims: Laid over what an ID token says; None removes a claim.
        header: Laid over a token's head.
        away: Whether it answers by 503.
    """

    def __init__(self):
        self.claims = {"email": "alice@example.org", "groups": ["sales"]}
        self.header = {}
        self.away = False
        self.unsigned = False
        self.url = ""
        self.asked = []
        self.codes = {}
        self.keys = [self._key("one")]

    @staticmethod
    def _key(kid):
        return RSAKey.generate_key(2048, parameters={"kid": kid})

    def rotate(self):
        """Sign by a new key from now on, and list no other."""
        self.keys = [self._key(f"key-{len(self.asked)}")]

    def app(self):
        app = web.Application(middlewares=[self._count])
        app.router.add_get("/.well-known/openid-configuration", self.discover)
        app.router.add_get("/authorize", self.authorize)
        app.router.add_post("/token", self.token)
        app.router.add_get("/jwks", self.jwks)
        return app

    @web.middleware
    async def _count(self, request, handler):
        self.asked.append(request.path)
        return web.Response(status=503) if self.away else await handler(request)

    async def discover(self, _):
        ends = {"authorization_endpoint": "authorize", "token_endpoint": "token"}
        found = {name: f"{self.url}/{path}" for name, path in ends.items()}
        found |= {"issuer": self.url, "jwks_uri": f"{self.url}/jwks"}
        return web.json_response({**found, "end_session_endpoint": f"{self.url}/end"})

    async def jwks(self, _):
        return web.json_response({"keys": [key.as_dict(private=False) for key in self.keys]})

    async def authorize(self, request):
        query = request.query
        assert query["code_challenge_method"] == "S256"
        assert query["response_type"] == "code"
        code = f"code-{len(self.codes)}"
        self.codes[code] = dict(query)
        back = urlencode({"code": code, "state": query["state"]})
        raise web.HTTPFound(f"{query['redirect_uri']}?{back}")

    async def token(self, request):
        form = await request.post()
        begun = self.codes.pop(form["code"], None)
        if begun is None:
            return web.json_response({"error": "invalid_grant"}, status=400)
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        assert challenge == begun["code_challenge"]
        assert form["redirect_uri"] == begun["redirect_uri"]
        given = base64.b64decode(request.headers["Authorization"].split()[1]).decode()
        if given != f"{CLIENT}:a%20secret%2Fwith%3Asigns":
            return web.json_response({"error": "invalid_client"}, status=401)
        return web.json_response({"id_token": self._id_token(begun), "token_type": "Bearer"})

    def _id_token(self, begun):
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": CLIENT,
            "sub": "1",
            "exp": now + 300,
            "iat": now,
            "nonce": begun["nonce"],
            **self.claims,
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        key = self.keys[0]
        if self.unsigned:
            parts = ({"alg": "none"}, claims)
            return ".".join([*(_packed(json.dumps(part).encode()) for part in parts), ""])
        header = {"alg": "RS256", "kid": key.kid, **self.header}
        return jwt.encode(header, claims, key, algorithms=["RS256", "HS256"])


def _packed(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@asynccontextmanager
async def tricky_provider():
    """Serve a provider; its URL is known then."""
    provider = TrickyProvider()
    runner = web.AppRunner(provider.app())
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        provider.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield provider
    finally:
        await runner.cleanup()
