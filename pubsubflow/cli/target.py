"""The target of a command: the daemon that it connects to, and the format of its output."""

import fcntl
import os
import re
import ssl
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, Unpack

import msgspec

from pubsubflow.cli.shell.parameter import Parameter
from pubsubflow.cli.zone import choose_zone
from pubsubflow.client import Client
from pubsubflow.config.sources import home_of, read_sources
from pubsubflow.errors import ConfigError, Unavailable

SERVER = "PUBSUBFLOW_SERVER"
TOKEN = "PUBSUBFLOW_TOKEN"  # noqa: S105 - a variable's name
CA = "PUBSUBFLOW_CA"
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


class _Options(TypedDict, total=False):
    """Further arguments of a client."""

    blocking: bool
    timeout_seconds: float
    retries: int


@Parameter(name="*", group="Daemon and output")
@dataclass(frozen=True, kw_only=True)
class Target:
    """The daemon that a command connects to, and the format of the command's output.

    Args:
        server: URL of the daemon, in place of the one that runs on the home folder; also
            $PUBSUBFLOW_SERVER.
        token: Bearer token for the daemon; better $PUBSUBFLOW_TOKEN, which a list of processes
            does not show. A daemon on this home folder needs none.
        ca: File with the certificate of the authority that signed the daemon's; also
            $PUBSUBFLOW_CA.
        home: Home folder of the daemon; $PUBSUBFLOW_HOME or ~/.pubsubflow if left out.
        config: Configuration file; ./pubsubflow.toml if left out.
        json: Print JSON.
        tz: Time zone in which times are shown, such as Europe/Warsaw; that of this machine if left
            out.
    """

    server: str | None = None
    token: str | None = None
    ca: Path | None = None
    home: Path | None = None
    config: Path | None = None
    json: bool = False
    tz: str | None = None

    def __post_init__(self) -> None:
        """Choose the zone.

        Raises:
            ConfigError: It is unknown.
        """
        if self.tz is not None:
            choose_zone(self.tz)

    def client(self, *, seconds: float = 30.0, retries: int = 3) -> Client:
        """Return a client for the daemon.

        Its requests block, as is right for most commands, unless an event loop runs here: what else
        runs on that goes on meanwhile.

        Args:
            seconds: How long the daemon may take to respond.
            retries: Number of further attempts when it cannot answer now.

        Raises:
            Unavailable: No daemon runs on the home.
            ConfigError: The configuration file, the URL, the token or the certificate is malformed.
        """
        # A variable that is set and empty counts as unset: scripts clear variables that way.
        blocking = not _has_event_loop()
        options = _Options(blocking=blocking, timeout_seconds=seconds, retries=retries)
        named, ca = self.server or os.environ.get(SERVER), self.ca or os.environ.get(CA) or None
        if named:
            token = self.token or os.environ.get(TOKEN) or None
            return Client(named, token=token, ca=ca, source="cli", **options)
        return client_for_home(self._home(), token=self.token, ca=ca, **options)

    def is_reachable(self) -> bool:
        """Whether a daemon is named, or runs on the home.

        Raises:
            ConfigError: The configuration file is malformed, or the home is another user's.
        """
        named = self.server or os.environ.get(SERVER)
        return bool(named) or read_daemon_address(self._home()) is not None

    def _home(self) -> Path:
        return home_of(
            read_sources(file=self.config, environ=os.environ, flags={"home": self.home})
        )


def _has_event_loop() -> bool:
    # Not imported for this: it is a third of the time of a short command.
    asyncio = sys.modules.get("asyncio")
    try:
        return asyncio is not None and bool(asyncio.get_running_loop())
    except RuntimeError:
        return False


DEFAULT = Target()
"""The target without any option: the daemon on the default home folder, and output for people."""


class DaemonAddress(msgspec.Struct, frozen=True):
    """The address of a running daemon: a part of `pubsubflow.embedded.HomeOwner`."""

    url: str | None = None
    token: str | None = None
    certificate: str | None = None


def client_for_home(
    home: Path,
    *,
    token: str | None = None,
    ca: str | Path | None = None,
    **options: Unpack[_Options],
) -> Client:
    """Return a client for the daemon that runs on a home folder.

    The home folder holds an admin token and the path of the daemon's certificate, so a user who can
    read it needs neither.

    Args:
        home: The folder.
        token: A token in place of the folder's.
        ca: File of the authority that signed the daemon's certificate, in place of pinning that
            certificate.
        options: Further arguments of the client.

    Raises:
        Unavailable: No daemon runs on the home, or it does not answer yet.
        ConfigError: The home is another user's, or its daemon's certificate cannot be read.
    """
    found = read_daemon_address(home)
    if found is None or found.url is None:
        raise Unavailable(
            f"no daemon answers on home {home}: start one with `pubsubflow up`, or name one with "
            "--home or --server"
        )
    tls = None if found.certificate is None or ca else _pinned(found.certificate)
    return Client(
        found.url,
        token=token or found.token,
        tls=tls,
        ca=ca,
        source="cli",
        **options,
    )


def _pinned(certificate: str) -> ssl.SSLContext:
    """Return a context that accepts the first certificate of a file and no other."""
    try:
        pem = _CERTIFICATE.search(Path(certificate).read_text(encoding="ascii"))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # The certificate itself is pinned, so it may name any host: the address here is often
        # 127.0.0.1, which public certificates do not name.
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_verify_locations(cadata=pem[0] if pem else "")
    except (OSError, ValueError, ssl.SSLError) as error:
        raise ConfigError(
            f"the daemon's certificate {certificate} cannot be read ({error}): name the authority "
            "that signed it with --ca"
        ) from error
    return context


def read_daemon_address(home: Path) -> DaemonAddress | None:
    """Return the address of the daemon that runs on a home; None if none does, or not yet.

    Does what `pubsubflow.embedded.read_owner` does without importing the embedded servers, which
    would cost every command their import time.

    Raises:
        ConfigError: The home is another user's.
    """
    try:
        lock = os.open(home / "lock", os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ConfigError(
            f"home {home} cannot be read ({error.strerror}): name another one with --home"
        ) from error
    # A daemon holds this lock exclusively for its whole life. Its `owner` file outlives a crash, so
    # the file counts only while the lock is held.
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read_owner_file(home)
    finally:
        os.close(lock)
    return None


def _read_owner_file(home: Path) -> DaemonAddress | None:
    try:
        found = msgspec.json.decode((home / "owner").read_bytes(), type=DaemonAddress)
    except (FileNotFoundError, msgspec.DecodeError):
        # The daemon is writing the file at this moment, or has just removed it.
        return None
    return found if found.url else None
