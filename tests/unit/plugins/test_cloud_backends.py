"""Secrets backends of Google and Azure, by the protocols that they and their libraries speak."""

import base64
import json

import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from pubsubflow.errors import ConfigError, SecretsUnavailable
from pubsubflow.secrets_backends.opening import open_backends
from pubsubflow.secrets_backends.settings import AzureSettings, BackendSettings, GoogleSettings
from support.web_server import served

pytestmark = pytest.mark.anyio

GOOGLE = "/v1/projects/acme/secrets/{name}/versions/latest:access"


class Cloud:
    """Issues tokens, and holds secrets."""

    def __init__(self, held):
        self.held = held
        self.issued = 0
        self.down = False

    async def google_token(self, request):
        form = await request.post()
        assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
        return self.issue({"token_type": "Bearer"})

    async def azure_token(self, request):
        assert request.headers["X-IDENTITY-HEADER"] == "hush"
        assert request.query["resource"] == "https://vault.azure.net"
        return self.issue({"resource": request.query["resource"], "token_type": "Bearer"})

    def issue(self, more):
        self.issued += 1
        answer = {"access_token": f"t{self.issued}", "expires_in": 3600, **more}
        return web.json_response(answer | {"expires_on": "4102444800"})

    async def read(self, request):
        if self.down:
            return web.Response(status=503)
        assert request.headers["Authorization"] == f"Bearer t{self.issued}"
        found = self.held.get(request.match_info["name"])
        if found is None:
            return web.json_response({"error": {"code": 404}}, status=404)
        if isinstance(found, int):
            return web.json_response({"error": {"message": "denied to this"}}, status=found)
        return web.json_response(found)


async def try_a_cloud(cloud, chain):
    crm = await chain.connection("crm")
    assert (crm.host, crm.secrets) == ("crm", {"token": "t"})
    assert (await chain.variable("region")).value == "eu"
    assert await chain.find("secrets", "hook_2") == "s3cr3t"
    assert await chain.find("secrets", "absent") is None
    assert await chain.find("secrets", "../hook_2") is None
    # One token for all of it.
    assert cloud.issued == 1
    with pytest.raises(ConfigError, match=r"answers 403 for .*: denied to this"):
        await chain.find("secrets", "closed")
    cloud.down = True
    with pytest.raises(SecretsUnavailable, match="answers 503"):
        await chain.find("secrets", "hook_2")


CRM = '{"uri": "https://crm/", "secrets": {"token": "t"}}'


async def test_google_secret_manager(tmp_path, monkeypatch):
    def secret(text):
        return {"name": "x", "payload": {"data": base64.b64encode(text.encode()).decode()}}

    cloud = Cloud(
        {
            "pubsubflow-connections-crm": secret(CRM),
            "pubsubflow-variables-region": secret("eu"),
            "pubsubflow-secrets-hook_2": secret("s3cr3t"),
            "pubsubflow-secrets-closed": 403,
            "pubsubflow-secrets-binary": {"payload": {"data": "/w=="}},
        }
    )
    routes = (web.post("/token", cloud.google_token), web.get(GOOGLE, cloud.read))
    async with served(*routes) as url:
        key = rsa.generate_private_key(65537, 2048).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        account = {
            "type": "service_account",
            "client_email": "psf@acme.iam.gserviceaccount.com",
            "private_key": key.decode(),
            "token_uri": f"{url}/token",
        }
        (tmp_path / "key.json").write_text(json.dumps(account))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
        made = GoogleSettings(project="acme", endpoint_url=url)
        settings = BackendSettings(backends=("gcp-secret-manager",), gcp=made, cache_seconds=0)
        chain = open_backends(settings)
        with pytest.raises(ConfigError, match="does not hold a text"):
            await chain.find("secrets", "binary")
        await try_a_cloud(cloud, chain)
    with pytest.raises(SecretsUnavailable, match="out of reach"):
        await chain.find("secrets", "hook_2")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "gone.json"))
    with pytest.raises(ConfigError, match="Google knows no identity of this daemon"):
        await open_backends(settings).find("secrets", "hook_2")


async def test_azure_key_vault(monkeypatch):
    cloud = Cloud(
        {
            "pubsubflow-connections-crm": {"value": CRM},
            "pubsubflow-variables-region": {"value": "eu"},
            "pubsubflow-secrets-hook-2": {"value": "s3cr3t"},
            "pubsubflow-secrets-closed": 403,
        }
    )
    routes = (web.get("/identity", cloud.azure_token), web.get("/secrets/{name}", cloud.read))
    async with served(*routes) as url:
        # As App Service tells its applications where their identity is.
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{url}/identity")
        monkeypatch.setenv("IDENTITY_HEADER", "hush")
        settings = BackendSettings(
            backends=("azure-key-vault",), azure=AzureSettings(vault_url=url), cache_seconds=0
        )
        await try_a_cloud(cloud, open_backends(settings))


def test_what_they_need_is_named():
    for name, setting in (("gcp-secret-manager", "project"), ("azure-key-vault", "vault_url")):
        with pytest.raises(ConfigError, match=rf"secrets\.\w+\.{setting} is missing"):
            open_backends(BackendSettings(backends=(name,)))
