"""Secret stores of Google and Azure as their references have them; what differs is refused.

Sources: cloud.google.com/secret-manager/docs/reference/rest/v1/projects.secrets.versions/access,
developers.google.com/identity/protocols/oauth2/service-account (the JWT bearer grant),
learn.microsoft.com/rest/api/keyvault/secrets/get-secret (7.4),
learn.microsoft.com/azure/app-service/overview-managed-identity (REST endpoint, 2019-08-01).
"""

import base64
import json
import time

from aiohttp import web
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

SCOPE = "https://www.googleapis.com/auth/cloud-platform"


class ProtocolError(Exception):
    """A request is not what the reference says."""


def demand(condition, what):
    if not condition:
        raise ProtocolError(what)


@web.middleware
async def told_apart(request, handler):
    """Answer what is wrong with a request, so that a test fails with it."""
    try:
        return await handler(request)
    except ProtocolError as error:
        return web.json_response({"error": {"message": f"PROTOCOL: {error}"}}, status=400)


class Cloud:
    """Issues tokens, and holds secrets under their names.

    Attributes:
        held: Name → value; a status in its place is what reading it is answered with.
        issued: How many tokens were issued.
        seconds: How long a token is good for.
        revoked: Tokens that are not taken any more.
    """

    def __init__(self, held):
        self.held = held
        self.issued = 0
        self.seconds = 3600
        self.down = False
        self.revoked = set()

    def issue(self, **more):
        self.issued += 1
        return web.json_response(
            {"access_token": f"t{self.issued}", "token_type": "Bearer", **more}
        )

    def found(self, request):
        """Return a secret, or the response of an error."""
        demand(not request.can_read_body, "a body comes with a GET")
        given = request.headers.get("Authorization", "")
        tokens = {f"Bearer t{number + 1}" for number in range(self.issued)} - self.revoked
        if self.down:
            return web.Response(status=503)
        if given not in tokens:
            return web.json_response(
                self.error(401, "Unauthenticated"),
                status=401,
                headers={"WWW-Authenticate": "Bearer"},
            )
        found = self.held.get(request.match_info["name"])
        if found is None:
            return web.json_response(self.error(404, "not found"), status=404)
        if isinstance(found, int):
            return web.json_response(self.error(found, "denied to this"), status=found)
        return found


class Google(Cloud):
    """Secret Manager, and the token endpoint of a service account."""

    email = "psf@acme.iam.gserviceaccount.com"

    def __init__(self, held):
        super().__init__(held)
        self._key = rsa.generate_private_key(65537, 2048)

    def routes(self):
        path = "/v1/projects/acme/secrets/{name}/versions/latest:access"
        return web.post("/token", self.token), web.get(path, self.access)

    def account(self, url):
        """Return the key file of a service account."""
        key = self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return json.dumps(
            {
                "type": "service_account",
                "client_email": self.email,
                "private_key": key.decode(),
                "token_uri": f"{url}/token",
            }
        )

    @staticmethod
    def error(code, message):
        return {"error": {"code": code, "message": message, "status": "ERROR"}}

    async def token(self, request):
        demand(request.content_type == "application/x-www-form-urlencoded", "not a form")
        form = await request.post()
        grant = "urn:ietf:params:oauth:grant-type:jwt-bearer"
        demand(form.get("grant_type") == grant, "another grant")
        signed, _, signature = form["assertion"].rpartition(".")
        try:
            self._key.public_key().verify(
                _decode(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256()
            )
        except InvalidSignature:
            raise ProtocolError("the assertion is not signed by the account") from None
        head, claims = (json.loads(_decode(each)) for each in signed.split("."))
        demand(head["alg"] == "RS256", "another algorithm")
        demand(claims["iss"] == self.email, "another issuer")
        demand(claims["aud"].endswith(request.path), "another audience")
        demand(SCOPE in claims["scope"].split(), "another scope")
        demand(claims["iat"] <= time.time() < claims["exp"] <= claims["iat"] + 3600, "its time")
        return self.issue(expires_in=self.seconds)

    async def access(self, request):
        demand(not request.query, "an access has no query")
        found = self.found(request)
        if isinstance(found, web.Response):
            return found
        data = base64.b64encode(found.encode() if isinstance(found, str) else found).decode()
        name = f"projects/1/secrets/{request.match_info['name']}/versions/3"
        return web.json_response({"name": name, "payload": {"data": data, "dataCrc32c": "1"}})


class Azure(Cloud):
    """Key Vault, and the identity endpoint of App Service."""

    header = "hush"

    def routes(self):
        return web.get("/identity", self.token), web.get("/secrets/{name}", self.get)

    @staticmethod
    def error(code, message):
        return {"error": {"code": str(code), "message": message}}

    async def token(self, request):
        demand(request.headers.get("X-IDENTITY-HEADER") == self.header, "the header's secret")
        demand(request.query.get("api-version") == "2019-08-01", "another version")
        demand(request.query.get("resource") == "https://vault.azure.net", "another resource")
        ends = int(time.time()) + self.seconds
        return self.issue(expires_on=str(ends), resource=request.query["resource"])

    async def get(self, request):
        demand(request.query.get("api-version") == "7.4", "another version")
        found = self.found(request)
        if isinstance(found, web.Response):
            return found
        url = f"https://acme.vault.azure.net/secrets/{request.match_info['name']}/4387"
        return web.json_response({"value": found, "id": url, "attributes": {"enabled": True}})


def _decode(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
