"""Certificates, NKEYs and NATS's JWTs for tests, made anew each time."""

import base64
import binascii
import hashlib
import json
import os
import time
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

OPERATOR, ACCOUNT, USER, SEED = 14 << 3, 0, 20 << 3, 18 << 3


class Authority:
    """A certificate authority whose files are in a folder: `NAME.crt` and `NAME.key`."""

    def __init__(self, folder, name="ca"):
        self.folder = folder
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.file = str(folder / f"{name}.crt")
        made = self._builder(self._name, self._key).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        self._write(name, made.sign(self._key, hashes.SHA256()), self._key)

    def issue(self, name, *addresses):
        """Return the paths of a certificate for addresses, and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names = [x509.IPAddress(ip_address(each)) for each in addresses]
        made = self._builder(subject, key).add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name), *names]), critical=False
        )
        return self._write(name, made.sign(self._key, hashes.SHA256()), key)

    def _builder(self, subject, key):
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
        )

    def _write(self, name, certificate, key):
        paths = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        for path, data in zip(paths, (certificate.public_bytes(Encoding.PEM), secret), strict=True):
            path.touch(mode=0o600)
            path.write_bytes(data)
        return tuple(map(str, paths))


class Nkey:
    """An NKEY of a kind, as `nk -gen` makes it."""

    def __init__(self, kind):
        seed = os.urandom(32)
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = _text(bytes([kind]) + self._private.public_key().public_bytes_raw())
        self.seed = _text(bytes([SEED | kind >> 5, (kind & 31) << 3]) + seed)

    def jwt(self, subject, name, **claims):
        """Return a JWT about somebody, signed by this key."""
        now = int(time.time())
        body = {"iat": now, "iss": self.public, "sub": subject, "name": name, "nats": claims}
        digest = hashlib.sha512(json.dumps(body).encode()).digest()[:32]
        body["jti"] = base64.b32encode(digest).decode().rstrip("=")
        head = {"typ": "JWT", "alg": "ed25519-nkey"}
        signed = ".".join(_base64(json.dumps(part).encode()) for part in (head, body))
        return f"{signed}.{_base64(self._private.sign(signed.encode()))}"


def _text(body):
    check = binascii.crc_hqx(body, 0).to_bytes(2, "little")
    return base64.b32encode(body + check).decode().rstrip("=")


def _base64(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
