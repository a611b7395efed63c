"""The account of user code: where the daemon is root, tasks have a user id of their own.

The daemon chooses it at its start; the processes that the zygote forks enter it before they run a
line of user code. It owns nothing but its home folder.
"""

import ctypes
import errno
import hashlib
import os
import pwd
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import anyio
import msgspec

from pubsubflow.errors import ConfigError

AUTO = "auto"
"""The value of `run_as` that leaves the choice to the daemon."""

_ACCOUNT = "pubsubflow"
_CACHES = ("/var/cache",)
_FIRST_UID, _UIDS = 61_184, 4_335  # what systemd gives to services without an account, too
_PR_SET_DUMPABLE = 4  # linux/prctl.h
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_MOST_CAPABILITIES = 64
_PROBE = """
import os, sys
for path in sys.argv[1:]:
    if not os.access(path, os.R_OK | os.X_OK if os.path.isdir(path) else os.R_OK):
        sys.exit(path)
"""


class TaskAccount(msgspec.Struct, frozen=True, array_like=True):
    """The account under which user code runs.

    Attributes:
        name: As in `USER`; no account of that name need exist.
        home: A folder that it alone may use; `HOME` of tasks.
        shared: A folder of root that this account can reach.
        entered: The name of the account that this process has entered; empty if none.
    """

    entered: ClassVar[str] = ""

    name: str
    uid: int
    gid: int
    home: str = ""
    shared: str = ""

    def may_read(self, facts: os.stat_result) -> bool:
        """Return whether this account may read a file, as far as its own mode goes."""
        if facts.st_uid == self.uid:
            return bool(facts.st_mode & stat.S_IRUSR)
        if facts.st_gid == self.gid:
            return bool(facts.st_mode & stat.S_IRGRP)
        return bool(facts.st_mode & stat.S_IROTH)

    def refusal(self, paths: Sequence[str]) -> str | None:
        """Return why user code cannot run under this account; None if it can.

        Args:
            paths: What it must be able to read.
        """
        command = [sys.executable, "-I", "-S", "-c", _PROBE, *paths]
        try:
            found = subprocess.run(
                command,
                user=self.uid,
                group=self.gid,
                extra_groups=[],
                cwd="/",
                capture_output=True,
                text=True,
                check=False,
            )
        except (OSError, subprocess.SubprocessError) as error:
            return f"{sys.executable} cannot be started as user {self.uid}: {error}"
        if found.returncode:
            return f"user {self.uid} cannot read {found.stderr.strip() or sys.executable}"
        return None

    def environment(self, before: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of a process that enters this account."""
        kept = {
            name: text for name, text in before.items() if not name.startswith(("XDG_", "SUDO_"))
        }
        return kept | {"HOME": self.home, "USER": self.name, "LOGNAME": self.name}

    def enter(self) -> None:
        """Make this process one of this account, for good; it must be root's.

        Raises:
            OSError: The system refuses it.
        """
        if sys.platform == "linux":
            for capability in range(_MOST_CAPABILITIES):
                _prctl(_PR_CAPBSET_DROP, capability)
        os.setgroups([])
        os.setgid(self.gid)
        os.setuid(self.uid)
        if sys.platform == "linux":
            _prctl(_PR_SET_NO_NEW_PRIVS, 1)
        # Not even to other processes of this account: they may be of other DAGs.
        set_inspectable(allowed=False)
        changed = self.environment(os.environ)
        for name in os.environ.keys() - changed.keys():
            del os.environ[name]
        os.environ |= changed
        if not os.access(".", os.X_OK):
            os.chdir(self.home)
        TaskAccount.entered = self.name


def choose_task_account(wanted: str, home: Path, taken: Collection[int]) -> TaskAccount | None:
    """Return the account for user code; None for the daemon's own.

    `auto` is, where the daemon is root, an account named `pubsubflow`, or else a user id of its
    own that no account has.

    Args:
        wanted: `auto`, the name of an account, or nothing for the daemon's own.
        home: The daemon's home, by which the user id is chosen.
        taken: User ids of the servers, which must not be those of tasks.

    Raises:
        ConfigError: The account does not exist, is a server's, or the daemon is not root and may
            not become it.
    """
    if wanted in ("", "root") or (wanted == AUTO and os.geteuid() != 0):
        return None
    if wanted == AUTO:
        found = _find(_ACCOUNT)
        return found if found and found.uid not in {0, *taken} else _unused(home, taken)
    found = _find(wanted)
    if found is None:
        raise ConfigError(
            f"configuration: worker.run_as is {wanted!r}, and no account has that name: make it "
            f"(useradd --system {wanted}), or name another"
        )
    if found.uid == os.geteuid():
        return None
    if os.geteuid() != 0:
        raise ConfigError(
            f"configuration: worker.run_as is {wanted!r}, and only root's daemon can run code "
            "under another account: start it as root, or leave worker.run_as out"
        )
    if found.uid in taken:
        raise ConfigError(
            f"configuration: worker.run_as is {wanted!r}, the account of Postgres, whose data "
            "tasks must not read: name another"
        )
    return found


def make_folders(account: TaskAccount, home: Path) -> TaskAccount:
    """Make the folders of an account, and return it with them.

    Args:
        account: The account.
        home: The daemon's home; the folders are of it alone.

    Raises:
        ConfigError: No folder for them can be made.
    """
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
    for parent in (*_CACHES, tempfile.gettempdir()):
        shared = Path(parent, f"pubsubflow-{digest}")
        try:
            _own_folder(shared, 0, account.gid, 0o710)
            own = shared / f"home-{account.uid}"
            _own_folder(own, account.uid, account.gid, 0o700)
        except OSError:
            continue
        return msgspec.structs.replace(account, home=str(own), shared=str(shared))
    raise ConfigError(
        f"neither /var/cache nor {tempfile.gettempdir()} can hold what tasks of account "
        f"{account.name} read: make one of them writable"
    )


def needed_paths() -> list[str]:
    """Return what an account must be able to read to run user code: where we are imported from."""
    files = (os.__file__, socket.__file__, anyio.__file__, msgspec.__file__, __file__)
    return sorted({str(Path(file).parent) for file in files if file})


def account_hint(error: BaseException) -> str:
    """Return what to add to the text of an error that the account of this process may explain."""
    if not (TaskAccount.entered and isinstance(error, PermissionError)):
        return ""
    return f" (tasks run under the account {TaskAccount.entered}: see worker.run_as)"


def set_inspectable(*, allowed: bool) -> None:
    """Set whether processes of the same account may trace this one, or read its memory (Linux).

    It ends with an `exec`, and is inherited by a fork.
    """
    if sys.platform == "linux":
        _prctl(_PR_SET_DUMPABLE, int(allowed))


def _own_folder(path: Path, uid: int, gid: int, mode: int) -> None:
    """Make a folder with this owner and mode; another's of that name is refused."""
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    facts = path.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid not in (0, uid):
        raise OSError(errno.EACCES, "it belongs to another user", str(path))
    os.chown(path, uid, gid, follow_symlinks=False)
    path.chmod(mode)


def _find(name: str) -> TaskAccount | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return TaskAccount(name, entry.pw_uid, entry.pw_gid)


def _unused(home: Path, taken: Collection[int]) -> TaskAccount:
    """Return an account that no one has, the same one at each start on a home."""
    used = {entry.pw_uid for entry in pwd.getpwall()} | set(taken)
    for uid in _candidates(home):
        if uid not in used:
            return TaskAccount(f"pubsubflow-{uid}", uid, uid)
    raise ConfigError("all user ids for services are taken: name an account by worker.run_as")


def _candidates(home: Path) -> Iterator[int]:
    start = int.from_bytes(hashlib.sha256(os.fsencode(home)).digest()[:4])
    return (_FIRST_UID + (start + step) % _UIDS for step in range(_UIDS))


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
