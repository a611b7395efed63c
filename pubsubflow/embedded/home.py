"""The home folder: what is where in it, and who holds it.

::

    VERSION         number of this layout
    lock            locked by the daemon that holds the home
    servers.lock    locked by the servers too, so until the last of them is gone
    owner           who holds it, as JSON, and a token for its owner's commands; believed only
                    while the lock is held
    secrets         password and token of the servers
    keys            what connections are encrypted with; see store/keys.py
    nats.port       the port NATS had, and gets again if it can
    log/  nats/  postgres/data/
"""

import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import anyio
import msgspec

from pubsubflow.errors import ConfigError

FORMAT = 1
"""Number of the layout that this code reads and writes."""

_PRIVATE_FOLDER = 0o700
_PRIVATE_FILE = 0o600
_GLANCE_SECONDS = 0.25  # somebody may only be looking who holds the home
_BURIAL_SECONDS = 20.0  # what the servers of a killed daemon may take to end
_LOCK_POLL_SECONDS = 0.01


class HomeOwner(msgspec.Struct, frozen=True):
    """The daemon that holds a home.

    Attributes:
        pid: Its process id.
        started_at: When it took the home, with a zone.
        url: Where its HTTP answers, None until it does.
        token: With it, whoever may read the home does there what they want; new each start.
        certificate: File of the certificate that it shows, if it speaks TLS.
    """

    pid: int
    started_at: datetime
    url: str | None = None
    token: str | None = None
    certificate: str | None = None


class Secrets(msgspec.Struct, frozen=True):
    """What the servers ask of those who connect; made once for a home."""

    postgres_password: str
    nats_token: str


class Home:
    """A home folder that this process wants to hold.

    Args:
        path: The folder; it need not exist.
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
        """The descriptor that every server is to inherit."""
        if self._servers_lock is None:
            raise RuntimeError("the home is not held")
        return self._servers_lock

    async def hold(self, owner: HomeOwner) -> None:
        """Take the home, and wait until servers of a killed predecessor are gone.

        Args:
            owner: Who we are.

        Raises:
            ConfigError: The folder cannot be used, is of a newer version, or somebody holds it.
        """
        try:
            with translated(self.path):
                self._claim()
                await self._lock_up(owner)
                self._furnish()
        except BaseException:
            self.let_go()
            raise

    def let_go(self) -> None:
        """Give the home up; the locks of servers that still run stay."""
        try:
            if self._lock is not None:
                (self.path / "owner").unlink(missing_ok=True)
        finally:
            for descriptor in (self._servers_lock, self._lock):
                if descriptor is not None:
                    os.close(descriptor)
            self._lock = self._servers_lock = None

    def sign(self, owner: HomeOwner) -> None:
        """Write down who holds the home.

        Raises:
            ConfigError: The folder cannot be written.
        """
        with translated(self.path):
            write_private(self.path / "owner", msgspec.json.encode(owner))

    def secrets(self) -> Secrets:
        """Give the servers' secrets, made at the first call.

        Raises:
            ConfigError: They cannot be read or written.
        """
        path = self.path / "secrets"
        with translated(self.path):
            if not path.exists():
                made = Secrets(secrets.token_urlsafe(32), secrets.token_urlsafe(32))
                write_private(path, msgspec.json.encode(made))
            try:
                return msgspec.json.decode(path.read_bytes(), type=Secrets)
            except msgspec.DecodeError as error:
                raise ConfigError(f"{path} is damaged ({error}): restore it") from error

    async def _lock_up(self, owner: HomeOwner) -> None:
        self._lock = await _locked(self.path / "lock", _GLANCE_SECONDS)
        if self._lock is None:
            raise ConfigError(_held_message(self.path, _owner(self.path)))
        self.sign(owner)
        self._servers_lock = await _locked(self.path / "servers.lock", _BURIAL_SECONDS)
        if self._servers_lock is None:
            raise ConfigError(
                f"servers of an earlier daemon still run on home {self.path}: end them "
                f"(fuser {self.path / 'servers.lock'} names them) and try again"
            )

    def _claim(self) -> None:
        """Make sure that the folder is there, ours, and of a version that we know."""
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
            self.path.chmod(_PRIVATE_FOLDER)  # a folder with other things in it is left as it is

    def _furnish(self) -> None:
        version = self.path / "VERSION"
        if not version.exists():
            write_private(version, f"{FORMAT}\n".encode())
        for folder in (self.log, self.nats, self.postgres):
            folder.mkdir(mode=_PRIVATE_FOLDER, exist_ok=True)


def read_owner(home: Path) -> HomeOwner | None:
    """Say who holds a home; None when nobody does.

    The kernel's lock is asked, so what a killed daemon left behind is not believed.

    Raises:
        ConfigError: The home is another user's.
    """
    path = home.expanduser().absolute()
    with translated(path):
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


def write_private(path: Path, content: bytes, owner: tuple[int, int] | None = None) -> None:
    """Write a file that only its owner can read, all at once or not at all.

    Args:
        path: The file.
        content: All of it.
        owner: User and group id; ours when None.
    """
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE_FILE)
    with os.fdopen(descriptor, "wb") as file:
        if owner:
            os.fchown(descriptor, *owner)
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    draft.replace(path)


@contextmanager
def translated(home: Path) -> Iterator[None]:
    """Turn what the system says of the home's folder into a `ConfigError` that says what to do."""
    try:
        yield
    except OSError as error:
        raise ConfigError(_advice(home, error)) from error


def _advice(home: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"no space is left on the disk of home {home}: free some, or name another folder "
            "with --home"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return (
            f"home {home} is not ours to use ({error.filename}: {error.strerror}): "
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
    """What the holder wrote; None in the moment before it has."""
    try:
        return msgspec.json.decode((home / "owner").read_bytes(), type=HomeOwner)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _check_version(path: Path) -> None:
    text = path.read_text().strip()
    if not text.isdecimal():
        raise ConfigError(f"{path} holds {text!r}, not a number: name another folder with --home")
    if int(text) > FORMAT:
        raise ConfigError(
            f"home {path.parent} is of version {text} and this pubsubflow knows {FORMAT}: "
            "upgrade pubsubflow, or name another folder with --home"
        )


async def _locked(path: Path, seconds: float) -> int | None:
    """Open and lock a file; None when it is still locked after so many seconds."""
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
