"""Under which account Postgres runs: it refuses root, and we make no accounts."""

import os
import pwd
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec

from pubsubflow.errors import ConfigError

_SERVICE_ACCOUNTS = ("postgres", "nobody")


class Account(msgspec.Struct, frozen=True):
    """An account of this machine that is not root."""

    name: str
    uid: int
    gid: int

    def can_execute(self, program: Path) -> bool:
        """Say whether this account reaches and runs a program; asks the kernel, not mode bits."""
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


def choose_account(data: Path) -> Account | None:
    """Choose the account for Postgres; None when ours will do, since it is not root's.

    As root: the owner of the data, if there is data; else who called ``sudo``; else an account
    named ``postgres``; else ``nobody``.

    Args:
        data: Postgres' data folder, which need not exist yet.

    Raises:
        ConfigError: Root, and no other account is there to use.
    """
    if os.geteuid() != 0:
        return None
    for account in _candidates(data):
        if account.uid != 0:
            return account
    raise ConfigError(
        "Postgres refuses to run as root and there is no account 'postgres' or 'nobody': "
        "run pubsubflow as an ordinary user"
    )


def _candidates(data: Path) -> Iterator[Account]:
    if data.exists():
        owner = data.stat()
        yield Account(name=f"user {owner.st_uid}", uid=owner.st_uid, gid=owner.st_gid)
    caller = os.environ.get("SUDO_UID", "")
    entries = {entry.pw_name: entry for entry in pwd.getpwall()}
    wanted = [entry.pw_name for entry in entries.values() if str(entry.pw_uid) == caller]
    for name in (*wanted, *_SERVICE_ACCOUNTS):
        if name in entries:
            entry = entries[name]
            yield Account(name=name, uid=entry.pw_uid, gid=entry.pw_gid)
