"""A certificate authority for tests, and the certificates that it signs."""

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PLAIN = serialization.NoEncryption()


class Authority:
    """Signs certificates; its own is in `path`."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        self._folder = folder
        self.path = folder / f"{name}.pem"
        draft = _draft(self._name, self._name, self._key, timedelta(days=1))
        ca = draft.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        self._certificate = ca.sign(self._key, hashes.SHA256())
        self.path.write_bytes(_pem(self._certificate))

    def sign(
        self, *names: str, cert: str = "", key: str = "", encryption=PLAIN, days=1
    ) -> tuple[Path, Path]:
        """Write a certificate for names or addresses, and its key; return their files.

        The files are named after the first name unless `cert` and `key` say otherwise.
        """
        secret = ec.generate_private_key(ec.SECP256R1())
        draft = _draft(_named(names[0]), self._name, secret, timedelta(days=days))
        alternatives = x509.SubjectAlternativeName([_alternative(name) for name in names])
        made = draft.add_extension(alternatives, critical=False).sign(self._key, hashes.SHA256())
        certificate_file = self._folder / (cert or f"{names[0]}.pem")
        key_file = self._folder / (key or f"{names[0]}.key")
        certificate_file.write_bytes(_pem(made) + _pem(self._certificate))
        # Created with its mode: Postgres and nats-server refuse a key that others could read.
        key_file.touch(mode=0o600)
        key_file.write_bytes(
            secret.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
            )
        )
        return certificate_file, key_file


def _draft(subject, issuer, key, ends):
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=3))
        .not_valid_after(now + ends)
    )


def _pem(certificate):
    return certificate.public_bytes(serialization.Encoding.PEM)


def _named(name):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _alternative(name):
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
