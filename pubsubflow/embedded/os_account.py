"""The OS account of Postgres, which refuses to run as root."""

import os
import pwd
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec

from pubsubflow.errors import ConfigError

_SERVICE_ACCOUNTS = ("postgres", "nobody")


class OsAccount(msgspec.Struct, frozen=True):
    """An account of this machine other than root."""

    name: str
    uid: int
    gid: int

    def can_execute(self, program: Path) -> bool:
        """Return whether this account can execute a program, by trying it."""
        try:
            probe = subprocess.run(
                [program, "--version"],
                user=self.uid,
                group=self.gid,
                extra_groups=[self.gid],
                cwd="/",
                capture_output=True,
                check=False,
            )
        except OSError:  # may not be that account, may not reach or run the program
            return False
        return probe.returncode == 0


def choose_account(data: Path) -> OsAccount | None:
    """Choose the account for Postgres; None for the daemon's own, unless that is root.

    As root: the owner of existing data; else the caller of ``sudo``; else an account named
    ``postgres``; else ``nobody``.

    Args:
        data: Postgres' data folder, which need not exist yet.

    Raises:
        ConfigError: The daemon runs as root, and none of these accounts exists.
    """
    if os.geteuid() != 0:
        return None
    for account in _candidates(data):
        if account.uid != 0:
            return account
    raise ConfigError(
        "Postgres refuses to run as root and no account 'postgres' or 'nobody' exists: "
        "run pubsubflow as an ordinary user"
    )


def _candidates(data: Path) -> Iterator[OsAccount]:
    if data.exists():
        owner = data.stat()
        yield OsAccount(name=f"user {owner.st_uid}", uid=owner.st_uid, gid=owner.st_gid)
    caller = os.environ.get("SUDO_UID", "")
    entries = {entry.pw_name: entry for entry in pwd.getpwall()}
    wanted = [entry.pw_name for entry in entries.values() if str(entry.pw_uid) == caller]
    for name in (*wanted, *_SERVICE_ACCOUNTS):
        if name in entries:
            entry = entries[name]
            yield OsAccount(name=name, uid=entry.pw_uid, gid=entry.pw_gid)
