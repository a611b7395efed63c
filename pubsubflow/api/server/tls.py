"""TLS by certificate files, which may be renewed while the server runs."""

import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import anyio
import structlog
from cryptography import x509

from pubsubflow.errors import ConfigError

log = structlog.get_logger(__name__)

_LOOK_SECONDS = 5.0
_MISMATCH = "KEY_VALUES_MISMATCH"


class Certificate:
    """A certificate and its key, as the files have them now.

    Args:
        cert: File of the certificate, then of those that vouch for it, in PEM.
        key: File of its key, without a passphrase; the certificate's if None.
        look_seconds: How often the files are looked at.

    Attributes:
        context: For the server; a handshake always takes the newest certificate.

    Raises:
        ConfigError: A file cannot be read, or they do not fit.
    """

    def __init__(
        self, cert: Path, key: Path | None = None, *, look_seconds: float = _LOOK_SECONDS
    ) -> None:
        self._cert = cert
        self._key = key or cert
        self._look_seconds = look_seconds
        self._seen = self._look()
        self._current = self.context = self._load()
        self.context.sni_callback = self._hand_over  # runs for every handshake, with SNI or not

    async def follow(self) -> None:
        """Take renewed files into use until cancelled; while they do not fit, the old ones stay."""
        while True:
            await anyio.sleep(self._look_seconds)
            self.renew()

    def renew(self) -> bool:
        """Take the files into use if they changed; return whether they were."""
        seen = self._look()
        if seen == self._seen:
            return False
        self._seen = seen
        try:
            self._current = self._load()
        except ConfigError as error:
            log.warning("tls.not_renewed", reason=str(error))
            return False
        log.info("tls.renewed", cert=str(self._cert))
        return True

    def _hand_over(
        self, connection: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _: ssl.SSLContext
    ) -> None:
        connection.context = self._current

    def _look(self) -> Sequence[object]:
        """Return what changes when a file does, also behind a link."""
        found: list[object] = []
        for path in (self._cert, self._key):
            try:
                state = path.stat()
            except OSError:
                found.append(None)
            else:
                found.append((state.st_ino, state.st_mtime_ns, state.st_size))
        return found

    def _load(self) -> ssl.SSLContext:
        self._check_file(self._cert, "certificate", "--tls-cert")
        self._check_file(self._key, "key", "--tls-key")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self._cert, self._key, password=self._no_passphrase)
        except ssl.SSLError as error:
            if error.reason == _MISMATCH:
                raise ConfigError(
                    f"the key in {self._key} is not that of the certificate in {self._cert}: name "
                    "a pair with --tls-cert and --tls-key"
                ) from error
            raise ConfigError(
                f"{self._cert} and {self._key} hold no certificate and key in PEM "
                f"({error.reason or error}): see --tls-cert and --tls-key"
            ) from error
        self._warn_if_over()
        return context

    def _no_passphrase(self) -> NoReturn:
        raise ConfigError(
            f"the key in {self._key} has a passphrase, which nobody could type: store it without "
            "one, readable by its owner alone"
        )

    @staticmethod
    def _check_file(path: Path, what: str, flag: str) -> None:
        try:
            path.read_bytes()
        except OSError as error:
            raise ConfigError(
                f"the {what} {path} cannot be read ({error.strerror}): see {flag}"
            ) from error

    def _warn_if_over(self) -> None:
        certificate = x509.load_pem_x509_certificates(self._cert.read_bytes())[0]
        if certificate.not_valid_after_utc < datetime.now(UTC):
            log.warning("tls.expired", cert=str(self._cert), at=certificate.not_valid_after_utc)


def certificate_of(cert: Path | None, key: Path | None) -> Certificate | None:
    """Return the certificate that settings name; None for plain HTTP.

    Raises:
        ConfigError: There is a key without a certificate, or see `Certificate`.
    """
    if cert is None:
        if key is not None:
            raise ConfigError("--tls-key needs --tls-cert, the certificate that the key belongs to")
        return None
    return Certificate(cert, key)
