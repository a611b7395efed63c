"""How commands find the daemon that they ask."""

import fcntl
import os
import re
import ssl
from dataclasses import dataclass
from pathlib import Path

import msgspec
from cyclopts import Parameter

from pubsubflow.client import Client
from pubsubflow.config.sources import home_of, read_layers
from pubsubflow.errors import ConfigError, Unavailable

SERVER = "PUBSUBFLOW_SERVER"
TOKEN = "PUBSUBFLOW_TOKEN"  # noqa: S105 - a variable's name
CA = "PUBSUBFLOW_CA"
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Asking:
    """Which daemon to ask, and the form of the answer.

    Args:
        server: URL of the daemon, in place of looking for it in the home folder; also
            $PUBSUBFLOW_SERVER.
        token: Bearer token for the daemon; better $PUBSUBFLOW_TOKEN, which no list of processes
            shows. For the daemon of a home the one that lies there will do.
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
        named, ca = self.server or os.environ.get(SERVER), self.ca or os.environ.get(CA) or None
        if named:
            token = self.token or os.environ.get(TOKEN) or None
            return Client(named, token=token, ca=ca, source="cli")
        return client_on(self._home(), token=self.token, ca=ca)

    def finds(self) -> bool:
        """Whether a daemon is named, or runs on the home.

        Raises:
            ConfigError: The configuration file is malformed, or the home is another user's.
        """
        named = self.server or os.environ.get(SERVER)
        return bool(named) or read_answering(self._home()) is not None

    def _home(self) -> Path:
        return home_of(read_layers(file=self.config, environ=os.environ, flags={"home": self.home}))


class Answering(msgspec.Struct, frozen=True):
    """Where a daemon answers: the part of `pubsubflow.embedded.HomeOwner` that matters here."""

    url: str | None = None
    token: str | None = None
    certificate: str | None = None


def client_on(home: Path, *, token: str | None = None, ca: str | Path | None = None) -> Client:
    """Return a client for the daemon that holds a home.

    Whoever can read the home may do everything there: a token lies in it, and the certificate that
    the daemon shows is known, so it may be made out to any name.

    Args:
        home: The folder.
        token: A token in place of that one.
        ca: File of the authority that signed the daemon's certificate, in place of trusting it.

    Raises:
        Unavailable: No daemon runs on the home, or it does not answer yet.
        ConfigError: The home is another user's, or its daemon's certificate cannot be read.
    """
    found = read_answering(home)
    if found is None or found.url is None:
        raise Unavailable(
            f"no daemon answers on home {home}: start one with `pubsubflow up`, or name one with "
            "--home or --server"
        )
    tls = None if found.certificate is None or ca else _only(found.certificate)
    return Client(found.url, token=token or found.token, tls=tls, ca=ca, source="cli")


def _only(certificate: str) -> ssl.SSLContext:
    """Return how to check that a server shows the first certificate of a file and no other."""
    try:
        pem = _CERTIFICATE.search(Path(certificate).read_text(encoding="ascii"))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_verify_locations(cadata=pem[0] if pem else "")
    except (OSError, ValueError, ssl.SSLError) as error:
        raise ConfigError(
            f"the daemon's certificate {certificate} cannot be read ({error}): name the authority "
            "that signed it with --ca"
        ) from error
    return context


def read_answering(home: Path) -> Answering | None:
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
        return _written(home)
    finally:
        os.close(lock)
    return None


def _written(home: Path) -> Answering | None:
    try:
        found = msgspec.json.decode((home / "owner").read_bytes(), type=Answering)
    except (FileNotFoundError, msgspec.DecodeError):
        return None  # it is just being written, or just gone
    return found if found.url else None
