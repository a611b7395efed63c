"""Postgres over TLS. The embedded binaries are built without: this takes the system's, if any."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from anyio import to_thread

from pubsubflow.errors import ConfigError, StoreUnavailable
from pubsubflow.store.database import Database
from pubsubflow.store.servers.settings import PostgresSettings
from support.certificates import Authority

pytestmark = pytest.mark.anyio

FOLDERS = (Path("/usr/local/pgsql/bin"), *sorted(Path("/usr/lib/postgresql").glob("*/bin")))
BINARIES = next((folder for folder in FOLDERS if (folder / "initdb").exists()), None)
HBA = """
local   all all trust
hostssl all ann 127.0.0.1/32 scram-sha-256
hostssl all bob 127.0.0.1/32 cert
"""


class Server:
    """A Postgres that takes nothing but TLS over TCP; root's runs under another account."""

    def __init__(self, folder):
        self.folder, self.data = folder, folder / "data"
        self.authority = Authority(folder)
        self.account = {} if os.geteuid() else {"user": "nobody", "group": -1, "extra_groups": []}
        self.uid = os.geteuid() or pwd.getpwnam("nobody").pw_uid
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        if not self.account:
            return
        self.account["group"] = pwd.getpwnam("nobody").pw_gid
        os.chown(folder, self.uid, -1)

    @contextmanager
    def running(self):
        quick = ["-U", "postgres", "-A", "trust", "-N", "--no-locale", "-E", "UTF8"]
        self._run([BINARIES / "initdb", "-D", self.data, *quick])
        certificate, key = self.authority.sign("localhost", "127.0.0.1")
        (self.data / "pg_hba.conf").write_text(HBA)
        for source, name in (
            (certificate, "server.crt"),
            (key, "server.key"),
            (self.authority.path, "ca.crt"),
        ):
            shutil.copy(source, self.data / name)
            (self.data / name).chmod(0o600)
            os.chown(self.data / name, self.uid, -1)
        options = ["listen_addresses=127.0.0.1", "ssl=on", "ssl_ca_file=ca.crt", "fsync=off"]
        command = [BINARIES / "postgres", "-D", self.data, "-k", self.folder, "-p", str(self.port)]
        with (self.folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [*command, *(part for option in options for part in ("-c", option))],
                **(self.account | {"cwd": "/", "stdout": log, "stderr": log}),
            )
        try:
            yield self
        finally:
            process.terminate()
            process.wait()

    def _run(self, command):
        subprocess.run(command, check=True, capture_output=True, cwd="/", **self.account)

    async def do(self, *statements):
        url = f"postgres://postgres@/postgres?host={self.folder}&port={self.port}"
        async with (
            Database.open(PostgresSettings(url=url, connect_seconds=60)) as database,
            database.connection() as postgres,
        ):
            for statement in statements:
                await postgres.execute(statement)

    def url(self, user="ann", host="localhost", more=""):
        return f"postgres://{user}@{host}:{self.port}/postgres{more}"


@pytest.fixture(scope="module")
async def server(anyio_backend):
    if BINARIES is None:
        pytest.skip("no PostgreSQL of the system is installed")
    with tempfile.TemporaryDirectory() as path:
        folder = Path(path)
        await to_thread.run_sync(folder.chmod, 0o755)
        with Server(folder).running() as server:
            await server.do("CREATE ROLE ann LOGIN PASSWORD 'hush-hush'", "CREATE ROLE bob LOGIN")
            yield server


@pytest.fixture
def trusting(server):
    return {"url": server.url(), "tls_ca_file": server.authority.path}


async def connects(**settings):
    """Connect, and return whether it is encrypted."""
    async with (
        Database.open(PostgresSettings(**settings)) as database,
        database.connection() as postgres,
    ):
        return await postgres.fetchval(
            "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND version = 'TLSv1.3'"
        )


async def refused(match, kind=ConfigError, **settings):
    with pytest.raises(kind, match=match) as caught:
        await connects(**settings)
    assert "hush" not in str(caught.value)
    assert "hush" not in repr(PostgresSettings(**settings))


async def test_tls_with_a_password_from_a_file(trusting, tmp_path):
    (tmp_path / "password").write_text("hush-hush\n")
    assert await connects(**trusting, password_file=str(tmp_path / "password"))
    assert await connects(**trusting, password="hush-hush")
    await refused("refuses the connection.*authentication failed", **trusting, password="hush")
    await refused("password_file .* cannot be read", **trusting, password_file="/nowhere")


async def test_the_parameters_of_a_url_work_too(server):
    more = f"?sslmode=verify-full&sslrootcert={server.authority.path}"
    assert await connects(url=server.url("ann:hush-hush", more=more))
    await refused("no encryption", url=server.url("ann:hush-hush", more="?sslmode=disable"))


async def test_a_server_that_is_not_trusted_is_refused_at_once(server, trusting, tmp_path):
    other = Authority(tmp_path, "other").path
    account = {"password": "hush-hush"}
    await refused("not trusted.*tls_ca_file", **account, **(trusting | {"tls_ca_file": other}))
    more = f"?sslmode=verify-full&sslrootcert={other}"
    await refused("not trusted", url=server.url("ann:hush-hush", more=more))
    await refused("cannot be used", **account, **(trusting | {"tls_ca_file": "/nowhere"}))


async def test_our_own_certificate_says_who_we_are(server, trusting):
    certificate, key = server.authority.sign("bob")
    settings = trusting | {"url": server.url("bob")}
    assert await connects(**settings, tls_cert_file=certificate, tls_key_file=key)
    await refused("refuses the connection", **settings)


async def test_a_url_that_cannot_be_read_is_told_without_its_password():
    for url in ("postgres://ann:hush:hush@db:x/d", "postgres://ann:hush/hush@db/d", "mysql://a"):
        await refused("postgres.url cannot be read", url=url)


async def use(database):
    async with database.connection() as postgres:
        return await postgres.fetchval("SELECT current_user")


async def test_a_password_that_is_changed_here_and_there_passes(server, trusting, tmp_path):
    path = tmp_path / "password"
    path.write_text("hush-hush")
    settings = PostgresSettings(**trusting, password_file=str(path), pool_max_size=1)
    async with Database.open(settings) as database:
        await server.do(
            "ALTER ROLE ann PASSWORD 'other'",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'ann'",
        )
        with pytest.raises(StoreUnavailable):
            await use(database)  # it may be the first to notice that the connection is gone
        with pytest.raises(StoreUnavailable, match="refuses"):
            await use(database)
        path.write_text("other")
        assert await use(database) == "ann"
        await server.do("ALTER ROLE ann PASSWORD 'hush-hush'")
