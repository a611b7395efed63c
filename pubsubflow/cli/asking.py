"""How commands find the daemon that they ask."""

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

import msgspec
from cyclopts import Parameter

from pubsubflow.client import Client
from pubsubflow.errors import ConfigError, Unavailable
from pubsubflow.layers import home_of, read_layers

SERVER = "PUBSUBFLOW_SERVER"
TOKEN = "PUBSUBFLOW_TOKEN"  # noqa: S105 - a variable's name
CA = "PUBSUBFLOW_CA"


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Asking:
    """Which daemon to ask, and the form of the answer.

    Args:
        server: URL of the daemon, in place of looking for it in the home folder; also
            $PUBSUBFLOW_SERVER.
        token: Bearer token for the daemon; better $PUBSUBFLOW_TOKEN, which no list of processes
            shows.
        ca: File with the certificate of the authority that signed the daemon's; also
            $PUBSUBFLOW_CA.
        home: Home folder of the daemon; $PUBSUBFLOW_HOME or ~/.pubsubflow if left out.
        config: Configuration file; ./pubsubflow.toml if left out.
        json: Answer in JSON.
    """

    server: str | None = None
    token: str | None = None
    ca: Path | None = None
    home: Path | None = None
    config: Path | None = None
    json: bool = False

    def client(self) -> Client:
        """Return a client for the daemon.

        Raises:
            Unavailable: No daemon runs on the home.
            ConfigError: The configuration file, the URL, the token or the certificate is malformed.
        """
        token = self.token or os.environ.get(TOKEN) or None
        ca = self.ca or os.environ.get(CA) or None
        return Client(self._url(), token=token, ca=ca, source="cli")

    def _url(self) -> str:
        named = self.server or os.environ.get(SERVER)
        if named:
            return named
        layers = read_layers(file=self.config, environ=os.environ, flags={"home": self.home})
        home = home_of(layers)
        url = read_url(home)
        if url is None:
            raise Unavailable(
                f"no daemon answers on home {home}: start one with `pubsubflow up`, or name one "
                "with --home or --server"
            )
        return url


class _Owner(msgspec.Struct):
    """The part of `pubsubflow.embedded.HomeOwner` that matters here."""

    url: str | None = None


def read_url(home: Path) -> str | None:
    """Return where the daemon that holds a home answers; None when none does, or not yet.

    The same question as `pubsubflow.embedded.read_owner` answers, without importing servers: what
    a daemon wrote is believed only while it holds the home's lock.

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
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _written_url(home)
    finally:
        os.close(lock)
    return None


def _written_url(home: Path) -> str | None:
    try:
        return msgspec.json.decode((home / "owner").read_bytes(), type=_Owner).url
    except (FileNotFoundError, msgspec.DecodeError):
        return None  # it is just being written, or just gone
