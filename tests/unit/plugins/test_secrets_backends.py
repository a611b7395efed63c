"""Secrets backends: files, Vault and AWS, each by the protocol that it speaks."""

import pytest
from aiohttp import web
from moto.server import ThreadedMotoServer

from pubsubflow.errors import ConfigError, NotFound, SecretsUnavailable
from pubsubflow.secrets_backends.chain import SecretsChain
from pubsubflow.secrets_backends.opening import open_backends
from pubsubflow.secrets_backends.settings import (
    AwsSettings,
    BackendSettings,
    FilesSettings,
    VaultSettings,
)
from pubsubflow.webhooks.secrets import DaemonSecrets, EnvironmentSecrets

pytestmark = pytest.mark.anyio


class Counting:
    name = "counting"

    def __init__(self, **held):
        self.held = held
        self.asked = 0

    async def find(self, _kind, name):
        self.asked += 1
        found = self.held.get(name)
        if isinstance(found, Exception):
            raise found
        return found


async def test_a_folder_of_files_holds_connections_and_secrets(tmp_path):
    folder = tmp_path / "secrets"
    (folder / "connections").mkdir(parents=True)
    (folder / "connections" / "crm").write_text(
        '{"uri": "https://crm/", "secrets": {"token": "f"}}'
    )
    (folder / "connections" / "both").write_text("x://ann:pw@file/")
    (folder / "variables").mkdir()
    (folder / "variables" / "region").write_text('{"eu": 1}\n')
    (folder / "variables" / "crm_token").write_text("hush-hush")
    (folder / "hook").write_text("from a file\n")
    (tmp_path / "outside").write_text("not ours")
    (folder / "connections" / "bad").write_text("{no")
    settings = BackendSettings(backends=("files",), files=FilesSettings(folder=folder))
    chain = open_backends(settings)
    crm = await chain.connection("crm")
    assert (crm.kind, crm.secrets) == ("https", {"token": "f"})
    both = await chain.connection("both")
    assert (both.host, both.password) == ("file", "pw")
    assert await chain.connection("absent") is None
    region, token = await chain.variable("region"), await chain.variable("crm_token")
    assert (region.value, region.secret) == ({"eu": 1}, False)
    assert (token.value, token.secret) == ("hush-hush", True)
    assert await chain.variable("crm") is None
    with pytest.raises(ConfigError, match="'bad' of the secrets backends"):
        await chain.connection("bad")
    for name in ("../outside", "connections", "a/b", ".."):
        assert await chain.find("secrets", name) is None

    class NoConnections:
        async def read_for(self, name, _dag_id, _what):
            raise NotFound("connection", name)

    secrets = DaemonSecrets(EnvironmentSecrets({}), NoConnections(), chain)
    assert await secrets.find("hook") == "from a file"
    assert await secrets.find("absent") is None


async def test_answers_are_kept_for_a_while_and_failures_name_their_backend():
    now = [0.0]
    first, second = Counting(a="1"), Counting(a="2", b="3", bad=ConfigError("refused"))
    second.name = "second"
    chain = SecretsChain([first, second], cache_seconds=30, clock=lambda: now[0])
    assert [await chain.find("secrets", name) for name in "aabb"] == ["1", "1", "3", "3"]
    assert (first.asked, second.asked) == (2, 1)
    now[0] = 31
    first.held["a"] = "new"
    assert await chain.find("secrets", "a") == "new"
    with pytest.raises(ConfigError, match="secrets backend second: refused"):
        await chain.find("secrets", "bad")
    first.held["b"] = SecretsUnavailable("away")
    now[0] = 70
    # Not the value of the next one: the first may hold another.
    with pytest.raises(SecretsUnavailable, match="secrets backend counting: away"):
        await chain.find("secrets", "b")


async def test_vault_is_read_by_a_role_and_signed_in_anew(tmp_path):
    held = {
        "connections/warehouse": {"uri": "postgres://ann@db/sales", "secrets": {"password": "v"}},
        "secrets/hook": {"value": "s3cr3t"},
        "variables/region": {"value": "eu"},
        "secrets/two": {"a": "1", "b": "2"},
    }
    tokens = []

    async def login(request):
        body = await request.json()
        if body != {"role_id": "psf", "secret_id": "id"}:
            return web.json_response({"errors": ["invalid"]}, status=400)
        tokens.append(f"t{len(tokens)}")
        return web.json_response({"auth": {"client_token": tokens[-1]}})

    async def read(request):
        if request.headers.get("X-Vault-Token") != tokens[-1]:
            return web.json_response({"errors": ["denied"]}, status=403)
        found = held.get(request.match_info["path"])
        if found is None:
            return web.json_response({"errors": []}, status=404)
        return web.json_response({"data": {"data": found, "metadata": {"version": 1}}})

    app = web.Application()
    app.add_routes(
        [
            web.post("/v1/auth/approle/login", login),
            web.get("/v1/secret/data/pubsubflow/{path:.*}", read),
        ]
    )
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    address = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
    (tmp_path / "id").write_text("id\n")
    vault = VaultSettings(address=address, role_id="psf", secret_id_file=str(tmp_path / "id"))
    settings = BackendSettings(backends=("vault",), vault=vault, cache_seconds=0)
    chain = open_backends(settings)
    assert (await chain.connection("warehouse")).url == "postgres://ann:v@db/sales"
    assert await chain.find("secrets", "hook") == "s3cr3t"
    assert await chain.find("secrets", "absent") is None
    assert (await chain.variable("region")).value == "eu"
    assert tokens == ["t0"]
    tokens.append("t1")  # the first one has ended
    assert await chain.find("secrets", "hook") == "s3cr3t"
    assert tokens == ["t0", "t1", "t2"]
    with pytest.raises(ConfigError, match="vault: secrets/two has several fields"):
        await chain.find("secrets", "two")
    await runner.cleanup()
    with pytest.raises(SecretsUnavailable, match=r"secrets backend vault: .* is out of reach"):
        await chain.find("secrets", "hook")


async def test_aws_holds_secrets_and_parameters(monkeypatch):
    aiobotocore = pytest.importorskip("aiobotocore.session")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        url = f"http://{':'.join(map(str, server.get_host_and_port()))}"
        made = {"region_name": "eu-central-1", "endpoint_url": url}
        session = aiobotocore.get_session()
        async with session.create_client("secretsmanager", **made) as client:
            await client.create_secret(Name="pubsubflow/connections/crm", SecretString="x://crm/")
        async with session.create_client("ssm", **made) as client:
            await client.put_parameter(
                Name="/pubsubflow/secrets/hook", Value="s3cr3t", Type="SecureString"
            )
        settings = BackendSettings(
            backends=("aws-secrets-manager", "aws-ssm"),
            aws=AwsSettings(region="eu-central-1", endpoint_url=url),
        )
        chain = open_backends(settings)
        assert (await chain.connection("crm")).host == "crm"
        assert await chain.find("secrets", "hook") == "s3cr3t"
        assert await chain.find("secrets", "absent") is None
    finally:
        server.stop()


def test_what_the_configuration_names_must_be_there():
    with pytest.raises(ConfigError, match=r"secrets.backends: no secrets-backend 'vualt'"):
        open_backends(BackendSettings(backends=("vualt",)))
    with pytest.raises(ConfigError, match=r"secrets.vault.address is missing"):
        open_backends(BackendSettings(backends=("vault",)))
