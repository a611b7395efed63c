"""Homes on which a daemon starts as on a new one, without the seconds that it takes to make one.

The first who asks makes a cluster with the tables, which no daemon has used; the tests of a session
copy it. What a new home is, tests/integration/embedded and `pubsubflow up` in
tests/integration/cli show.
"""

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import anyio

from pubsubflow.embedded import EmbeddedServers
from pubsubflow.store.database import Database
from pubsubflow.store.migrate import migrate
from pubsubflow.store.servers.settings import PostgresSettings

# What belongs to the servers that made the template, or to none yet.
_LEFT_OUT = ("nats", "nats.port", "owner", "log", "lock", "servers.lock")


class HomeTemplate:
    """The home that is copied, in a folder that all processes of a session share."""

    def __init__(self, folder: Path) -> None:
        self._place = folder / "home-template"

    def prepare(self) -> None:
        """Make the template, unless another process has; no event loop may run in this thread."""
        with self._place.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not self._place.exists():
                self._make()

    def copy(self, home: Path) -> Path:
        """Make a home from the template; returns its path."""
        home.parent.mkdir(parents=True, exist_ok=True)
        # With their owners: Postgres' account is another one where the tests are root's.
        subprocess.run(["cp", "-a", self._place, home], check=True)
        return home

    def _make(self) -> None:
        draft = self._place.with_suffix(".new")
        anyio.run(_make, draft)
        for name in _LEFT_OUT:
            path = draft / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        draft.rename(self._place)


async def _make(home: Path) -> None:
    async with (
        EmbeddedServers(home) as servers,
        Database.open(PostgresSettings(url=servers.postgres.dsn)) as database,
    ):
        await migrate(database)


def shared_folder(base: Path) -> Path:
    """Return the folder of a session, from that of one of its processes."""
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
