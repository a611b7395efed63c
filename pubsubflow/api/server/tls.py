"""TLS certificates are read from files, and reloaded when the files are renewed."""

import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import anyio
import structlog

from pubsubflow.errors import ConfigError
from pubsubflow.model.lazy_import import lazy_module

x509 = lazy_module("cryptography.x509")
log = structlog.get_logger(__name__)

_CHECK_SECONDS = 5.0
_MISMATCH = "KEY_VALUES_MISMATCH"


class Certificate:
    """A certificate and its key, as its files are now.

    Args:
        cert: File of the certificate, followed by its chain, in PEM.
        key: File of the key, without a passphrase; the certificate's file if None.
        check_seconds: How often the files are checked for changes.

    Attributes:
        context: The server's SSL context; each handshake uses the newest certificate.

    Raises:
        ConfigError: A file cannot be read, or certificate and key do not match.
    """

    def __init__(
        self, cert: Path, key: Path | None = None, *, check_seconds: float = _CHECK_SECONDS
    ) -> None:
        self._cert = cert
        self._key = key or cert
        self._check_seconds = check_seconds
        self._loaded_state = self._file_state()
        self._current = self.context = self._load()
        # The listening socket keeps the context that it was created with, so renewed certificates
        # are swapped in at each handshake. The callback runs with and without SNI.
        self.context.sni_callback = self._use_current

    async def run(self) -> None:
        """Reload renewed files until cancelled; the old ones stay while the new are invalid."""
        while True:
            await anyio.sleep(self._check_seconds)
            self.renew()

    def renew(self) -> bool:
        """Reload the files if they have changed; return whether they were reloaded."""
        state = self._file_state()
        if state == self._loaded_state:
            return False
        # Kept even if loading fails: an invalid pair is reported once, not at every check.
        self._loaded_state = state
        try:
            self._current = self._load()
        except ConfigError as error:
            log.warning("tls.renewal_failed", reason=str(error))
            return False
        log.info("tls.certificate_renewed", cert=str(self._cert))
        return True

    def _use_current(
        self, connection: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _: ssl.SSLContext
    ) -> None:
        connection.context = self._current

    def _file_state(self) -> Sequence[object]:
        """Return a value that differs when a file has changed, also one behind a link."""
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
                    f"the key in {self._key} does not belong to the certificate in {self._cert}: "
                    "set a matching pair with --tls-cert and --tls-key"
                ) from error
            raise ConfigError(
                f"{self._cert} and {self._key} hold no certificate and key in PEM "
                f"({error.reason or error}): see --tls-cert and --tls-key"
            ) from error
        self._warn_if_expired()
        return context

    def _no_passphrase(self) -> NoReturn:
        raise ConfigError(
            f"the key in {self._key} has a passphrase, which a daemon cannot enter: store it "
            "without one, readable by its owner alone"
        )

    @staticmethod
    def _check_file(path: Path, what: str, flag: str) -> None:
        try:
            path.read_bytes()
        except OSError as error:
            raise ConfigError(
                f"the {what} {path} cannot be read ({error.strerror}): see {flag}"
            ) from error

    def _warn_if_expired(self) -> None:
        certificate = x509.load_pem_x509_certificates(self._cert.read_bytes())[0]
        if certificate.not_valid_after_utc < datetime.now(UTC):
            log.warning(
                "tls.certificate_expired",
                cert=str(self._cert),
                at=certificate.not_valid_after_utc,
            )


def certificate_of(cert: Path | None, key: Path | None) -> Certificate | None:
    """Return the certificate of the settings; None for plain HTTP.

    Raises:
        ConfigError: A key is set without a certificate, or as for `Certificate`.
    """
    if cert is None:
        if key is not None:
            raise ConfigError("--tls-key needs --tls-cert, the certificate that the key belongs to")
        return None
    return Certificate(cert, key)
