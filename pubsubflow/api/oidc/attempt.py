"""An attempt to sign in: what a browser is sent away with, in a cookie until it comes back."""

import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256

import msgspec
from msgspec import Struct

HOME = "/ui/"
ATTEMPT_SECONDS = 600.0
"""How long a person may take at the provider."""

_BYTES = 32
_MOST = 2048
# A path of the page, without anything that a browser takes for another host.
_NEXT = re.compile(r"/ui/(?!/)[A-Za-z0-9_.~%?=&:+,@/-]*\Z")


class SignInAttempt(Struct, frozen=True, array_like=True):
    """What a browser was sent away with.

    It stands in a cookie: so any number of daemons will do, no stranger fills a table, and an
    address that comes back to another browser is refused there.

    Attributes:
        state: Comes back with the code.
        nonce: Comes back in the ID token.
        verifier: Proves to the provider that the code is exchanged by the one who began (PKCE).
        to: The path of the page that is shown then.
        until: Seconds since 1970.
    """

    state: str
    nonce: str
    verifier: str
    to: str
    until: float

    @classmethod
    def begin(cls, to: str | None, now: float) -> "SignInAttempt":
        """Return a new attempt that leads to a path of the page; to its beginning if it is none."""
        state, nonce, verifier = (secrets.token_urlsafe(_BYTES) for _ in range(3))
        return cls(state, nonce, verifier, safe_path(to), now + ATTEMPT_SECONDS)

    @property
    def challenge(self) -> str:
        """The SHA-256 of the verifier, as PKCE's method S256 has it."""
        digest = sha256(self.verifier.encode()).digest()
        return urlsafe_b64encode(digest).rstrip(b"=").decode()

    def to_cookie(self) -> str:
        """Return it as the value of a cookie."""
        return urlsafe_b64encode(msgspec.json.encode(self)).rstrip(b"=").decode()

    @classmethod
    def from_cookie(cls, text: str) -> "SignInAttempt | None":
        """Return the attempt in a cookie; None if it is not one."""
        try:
            data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
            found = msgspec.json.decode(data, type=cls)
        except (ValueError, msgspec.DecodeError):
            return None
        return msgspec.structs.replace(found, to=safe_path(found.to))


def safe_path(path: str | None) -> str:
    """Return a path of the page as it is, and the page's beginning for everything else."""
    return path if path is not None and len(path) <= _MOST and _NEXT.match(path) else HOME
