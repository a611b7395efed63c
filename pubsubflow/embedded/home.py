"""The home folder: its layout, and the locks of the daemon that holds it.

::

    VERSION         number of this layout
    lock            locked by the daemon that holds the home
    servers.lock    locked by the servers too, until the last of them has exited
    owner           the daemon, as JSON, with a token for commands of the home's owner; valid only
                    while the lock is held
    secrets         password and token of the servers
    keys            the keyring of connections; see store/secrets/keyring.py
    daemons/        records of daemons without servers of their own; see daemon_record.py
    nats.port       the last port of NATS, used again if it is free
    log/  nats/  postgres/data/
"""

import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import anyio
import msgspec

from pubsubflow.errors import ConfigError

LAYOUT_VERSION = 1
"""Number of the layout of this version."""

_NEW_DATA_BYTES = 1 << 30
"""Postgres' data and write-ahead log, the streams, and what the API keeps free."""
_PRIVATE_FOLDER = 0o700
_PRIVATE_FILE = 0o600
_LOCK_SECONDS = 0.25
_SERVERS_LOCK_SECONDS = 20.0  # time for the servers of a killed daemon to exit
_LOCK_POLL_SECONDS = 0.01


class HomeOwner(msgspec.Struct, frozen=True):
    """The daemon that holds a home.

    Attributes:
        pid: Its process id.
        started_at: When it acquired the home, with a zone.
        url: Of its HTTP server; None until that listens.
        token: Gives full access to those who can read the home; new at each start.
        certificate: File of its certificate, if it uses TLS.
    """

    pid: int
    started_at: datetime
    url: str | None = None
    token: str | None = None
    certificate: str | None = None


class Secrets(msgspec.Struct, frozen=True):
    """Credentials for the servers, created once for a home."""

    postgres_password: str
    nats_token: str


class Home:
    """A home folder, to be held by this process.

    Args:
        path: The folder; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()
        self.log = self.path / "log"
        self.nats = self.path / "nats"
        self.postgres = self.path / "postgres"
        self._lock: int | None = None
        self._servers_lock: int | None = None

    @property
    def servers_lock(self) -> int:
        """The descriptor that every server must inherit."""
        if self._servers_lock is None:
            raise RuntimeError("the home is not held")
        return self._servers_lock

    @property
    def has_secrets(self) -> bool:
        """Whether the servers' credentials have been created."""
        return (self.path / "secrets").exists()

    async def acquire(self, owner: HomeOwner, *, servers: bool = True) -> None:
        """Acquire the home, and wait until servers of a killed daemon have exited.

        Args:
            owner: This daemon.
            servers: Whether servers are to run on it.

        Raises:
            ConfigError: The folder cannot be used, has a newer layout, or is held by another
                daemon.
        """
        try:
            with translate_errors(self.path):
                self._check_folder()
                await self._acquire_lock(owner)
                if servers:
                    await self._acquire_servers_lock()
                    self._create_folders()
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Release the home; servers that still run keep their lock."""
        try:
            if self._lock is not None:
                (self.path / "owner").unlink(missing_ok=True)
        finally:
            for descriptor in (self._servers_lock, self._lock):
                if descriptor is not None:
                    os.close(descriptor)
            self._lock = self._servers_lock = None

    def write_owner(self, owner: HomeOwner) -> None:
        """Write the file `owner`.

        Raises:
            ConfigError: The folder cannot be written.
        """
        with translate_errors(self.path):
            write_private(self.path / "owner", msgspec.json.encode(owner), durable=False)

    def secrets(self) -> Secrets:
        """Return the servers' credentials, created at the first call.

        Raises:
            ConfigError: They cannot be read or written.
        """
        path = self.path / "secrets"
        with translate_errors(self.path):
            if not path.exists():
                made = Secrets(secrets.token_urlsafe(32), secrets.token_urlsafe(32))
                write_private(path, msgspec.json.encode(made))
            try:
                return msgspec.json.decode(path.read_bytes(), type=Secrets)
            except msgspec.DecodeError as error:
                raise ConfigError(f"{path} is damaged ({error}): restore it") from error

    async def _acquire_lock(self, owner: HomeOwner) -> None:
        # Not at once: read_owner of another process may hold the lock for a moment.
        self._lock = await _lock_file(self.path / "lock", _LOCK_SECONDS)
        if self._lock is None:
            raise ConfigError(_held_message(self.path, _owner(self.path)))
        self.write_owner(owner)

    async def _acquire_servers_lock(self) -> None:
        self._servers_lock = await _lock_file(self.path / "servers.lock", _SERVERS_LOCK_SECONDS)
        if self._servers_lock is None:
            raise ConfigError(
                f"servers of an earlier daemon still run on home {self.path}: end them "
                f"(fuser {self.path / 'servers.lock'} names them) and try again"
            )

    def _check_folder(self) -> None:
        """Create the folder if it is missing, and check its owner and its version."""
        self.path.mkdir(mode=_PRIVATE_FOLDER, parents=True, exist_ok=True)
        owner = self.path.stat().st_uid
        if os.geteuid() not in (0, owner):
            raise ConfigError(
                f"home {self.path} belongs to user {owner}: name another folder with --home"
            )
        version = self.path / "VERSION"
        if version.exists():
            _check_version(version)
        if version.exists() or not any(self.path.iterdir()):
            # Only a home or an empty folder: the mode of any other folder is left alone.
            self.path.chmod(_PRIVATE_FOLDER)

    def _create_folders(self) -> None:
        version = self.path / "VERSION"
        if not version.exists():
            write_private(version, f"{LAYOUT_VERSION}\n".encode())
        for folder in (self.log, self.nats, self.postgres):
            folder.mkdir(mode=_PRIVATE_FOLDER, exist_ok=True)


def check_space(home: Path) -> None:
    """Check that the disk has space for a daemon's data, unless there is data already.

    Args:
        home: The home folder; it need not exist yet.

    Raises:
        ConfigError: It has not; the text has the remedy.
    """
    path = home.expanduser().absolute()
    if (path / "postgres" / "data").exists():
        return
    with translate_errors(path):
        free = shutil.disk_usage(next(each for each in (path, *path.parents) if each.exists())).free
    if free < _NEW_DATA_BYTES:
        raise ConfigError(
            f"the disk of home {path} has {free >> 20} MiB free, and a new home needs "
            f"{_NEW_DATA_BYTES >> 20} MiB: free some, or name another folder with --home"
        )


def read_owner(home: Path) -> HomeOwner | None:
    """Return the daemon that holds a home; None if none does.

    The lock decides, so the file of a killed daemon is ignored.

    Raises:
        ConfigError: The home belongs to another user.
    """
    path = home.expanduser().absolute()
    with translate_errors(path):
        try:
            descriptor = os.open(path / "lock", os.O_RDONLY)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _owner(path)
        finally:
            os.close(descriptor)
    return None


def write_private(
    path: Path, content: bytes, owner: tuple[int, int] | None = None, *, durable: bool = True
) -> None:
    """Write a file atomically, readable by its owner alone.

    Args:
        path: The file.
        content: Its whole content.
        owner: User and group id; the daemon's own if None.
        durable: Whether to wait until it is on disk: not for what each start writes anew.
    """
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE_FILE)
    with os.fdopen(descriptor, "wb") as file:
        if owner:
            os.fchown(descriptor, *owner)
        file.write(content)
        file.flush()
        if durable:
            os.fsync(descriptor)
    draft.replace(path)


@contextmanager
def translate_errors(home: Path) -> Iterator[None]:
    """Translate an OSError on the home into a `ConfigError` with the remedy."""
    try:
        yield
    except OSError as error:
        raise ConfigError(_remedy(home, error)) from error


def _remedy(home: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"no space is left on the disk of home {home}: free some, or name another folder "
            "with --home"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return (
            f"access to home {home} is denied ({error.filename}: {error.strerror}): "
            "name another folder with --home"
        )
    return f"home {home} cannot be used ({error}): name another folder with --home"


def _held_message(home: Path, owner: HomeOwner | None) -> str:
    if owner is None:
        return f"home {home} is held by another daemon: name another folder with --home"
    return (
        f"home {home} is held by process {owner.pid} since {owner.started_at:%Y-%m-%d %H:%M:%S %Z}"
        f": stop it (kill {owner.pid}), or name another folder with --home"
    )


def _owner(home: Path) -> HomeOwner | None:
    """Return the content of `owner`; None in the moment before it is written."""
    try:
        return msgspec.json.decode((home / "owner").read_bytes(), type=HomeOwner)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _check_version(path: Path) -> None:
    text = path.read_text().strip()
    if not text.isdecimal():
        raise ConfigError(f"{path} holds {text!r}, not a number: name another folder with --home")
    if int(text) > LAYOUT_VERSION:
        raise ConfigError(
            f"home {path.parent} has layout {text}, and this pubsubflow supports {LAYOUT_VERSION}: "
            "upgrade pubsubflow, or name another folder with --home"
        )


async def _lock_file(path: Path, seconds: float) -> int | None:
    """Open and lock a file; return None if it is still locked after so many seconds."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, _PRIVATE_FILE)
    try:
        with anyio.move_on_after(seconds):
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    await anyio.sleep(_LOCK_POLL_SECONDS)
                else:
                    return descriptor
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None
