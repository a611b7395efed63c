"""Secrets backends of Google and Azure, by the protocols that they and their libraries speak."""

import pytest

from pubsubflow.errors import ConfigError, SecretsUnavailable
from pubsubflow.secrets_backends.opening import open_backends
from pubsubflow.secrets_backends.settings import AzureSettings, BackendSettings, GoogleSettings
from support.cloud_secrets import Azure, Google, told_apart
from support.web_server import served

pytestmark = pytest.mark.anyio


async def try_a_cloud(cloud, chain):
    crm = await chain.connection("crm")
    assert (crm.host, crm.secrets) == ("crm", {"token": "t"})
    assert (await chain.variable("region")).value == "eu"
    assert await chain.find("secrets", "hook_2") == "s3cr3t"
    assert await chain.find("secrets", "absent") is None
    assert await chain.find("secrets", "../hook_2") is None
    # One token for all of it, and another one when it is not taken any more.
    assert cloud.issued == 1
    cloud.revoked.add("Bearer t1")
    assert await chain.find("secrets", "hook_2") == "s3cr3t"
    assert cloud.issued == 2
    with pytest.raises(ConfigError, match=r"answers 403 for .*: denied to this"):
        await chain.find("secrets", "closed")
    cloud.down = True
    with pytest.raises(SecretsUnavailable, match="answers 503"):
        await chain.find("secrets", "hook_2")


CRM = '{"uri": "https://crm/", "secrets": {"token": "t"}}'


async def test_google_secret_manager(tmp_path, monkeypatch):
    cloud = Google(
        {
            "pubsubflow-connections-crm": CRM,
            "pubsubflow-variables-region": "eu",
            "pubsubflow-secrets-hook_2": "s3cr3t",
            "pubsubflow-secrets-closed": 403,
            "pubsubflow-secrets-binary": b"\xff",
        }
    )
    async with served(*cloud.routes(), middlewares=[told_apart]) as url:
        (tmp_path / "key.json").write_text(cloud.account(url))
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
    cloud = Azure(
        {
            "pubsubflow-connections-crm": CRM,
            "pubsubflow-variables-region": "eu",
            "pubsubflow-secrets-hook-2": "s3cr3t",
            "pubsubflow-secrets-closed": 403,
        }
    )
    async with served(*cloud.routes(), middlewares=[told_apart]) as url:
        # As App Service tells its applications where their identity is.
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{url}/identity")
        monkeypatch.setenv("IDENTITY_HEADER", cloud.header)
        settings = BackendSettings(
            backends=("azure-key-vault",), azure=AzureSettings(vault_url=url), cache_seconds=0
        )
        await try_a_cloud(cloud, open_backends(settings))


def test_what_they_need_is_named():
    for name, setting in (("gcp-secret-manager", "project"), ("azure-key-vault", "vault_url")):
        with pytest.raises(ConfigError, match=rf"secrets\.\w+\.{setting} is missing"):
            open_backends(BackendSettings(backends=(name,)))
