"""NATS NKEYs and the JWTs that they sign, made anew for each test."""

import base64
import binascii
import hashlib
import json
import os
import time

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

OPERATOR, ACCOUNT, USER, SEED = 14 << 3, 0, 20 << 3, 18 << 3


class Nkey:
    """An NKEY of a kind, as `nk -gen` makes it."""

    def __init__(self, kind):
        seed = os.urandom(32)
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = _text(bytes([kind]) + self._private.public_key().public_bytes_raw())
        self.seed = _text(bytes([SEED | kind >> 5, (kind & 31) << 3]) + seed)

    def jwt(self, subject, name, **claims):
        """Return a JWT about a subject, signed by this key."""
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
