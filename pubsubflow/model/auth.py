"""Who may ask: tokens, roles and what each may do; the decisions, without any I/O.

A token is `psf_` and 256 random bits in URL-safe base64. Only its SHA-256 is stored: as it is
random, nobody can guess it from its digest, so no slow hash is needed.
"""

import re
import secrets
from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from uuid import UUID

from msgspec import Struct

from pubsubflow.errors import DefinitionError, InvalidInput
from pubsubflow.model.datasets import matches, normalise_uri

PREFIX = "psf_"
_SECRET_BYTES = 32
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}\Z")


class Role(StrEnum):
    """What a token's holder may do.

    `VIEWER` sees everything but who may ask and what they did; `EMITTER` posts events of some
    datasets and sees nothing; `OPERATOR` does what there is to do; `ADMIN` also says who may ask.
    """

    VIEWER = "viewer"
    EMITTER = "emitter"
    OPERATOR = "operator"
    ADMIN = "admin"


class Token(Struct, frozen=True, kw_only=True):
    """A token as it is checked.

    Attributes:
        digest: SHA-256 of the token.
        datasets: Patterns or URIs of the datasets whose events an emitter may post.
        expires_at: When it expires; never if None.
    """

    id: UUID
    name: str
    role: Role
    digest: bytes
    datasets: tuple[str, ...] = ()
    expires_at: datetime | None = None

    def live(self, now: datetime) -> bool:
        """Whether it still counts."""
        return self.expires_at is None or now < self.expires_at


class Asker(Struct, frozen=True, kw_only=True):
    """Who asks.

    Attributes:
        name: The token's name; `local` for who needs none.
        token: The token's id, if it is one of the database's.
        datasets: What an emitter may post; None for no limit.
    """

    name: str
    role: Role
    token: UUID | None = None
    datasets: tuple[str, ...] | None = None

    def may_post(self, uri: str) -> bool:
        """Whether events of a dataset, by its normalised URI, may be posted."""
        limits = self.datasets
        return limits is None or any(uri == each or matches(each, uri) for each in limits)

    @classmethod
    def of(cls, token: Token) -> "Asker":
        """Return who shows a token."""
        limits = token.datasets if token.role is Role.EMITTER else None
        return cls(name=token.name, role=token.role, token=token.id, datasets=limits)


def new_secret() -> str:
    """Return a new token's text."""
    return PREFIX + secrets.token_urlsafe(_SECRET_BYTES)


def digest_of(secret: str) -> bytes:
    """Return what is stored of a token."""
    return sha256(secret.encode(errors="surrogateescape")).digest()


def check_name(name: str) -> str:
    """Return a token's name.

    Raises:
        InvalidInput: It is none.
    """
    if not _NAME.match(name):
        raise InvalidInput(
            f"{name!r} is no name of a token: up to 64 letters, digits and . _ @ - are, and the "
            "first is a letter or a digit"
        )
    return name


def check_limits(role: Role, datasets: Iterable[str]) -> tuple[str, ...]:
    """Return the patterns of an emitter, normalised.

    Raises:
        InvalidInput: An emitter has none, another role has some, or one is malformed.
    """
    given = tuple(datasets)
    if role is Role.EMITTER and not given:
        raise InvalidInput("an emitter needs to know which datasets: name them or their patterns")
    if role is not Role.EMITTER and given:
        raise InvalidInput(f"only an emitter is limited to datasets; a token of role {role} is not")
    try:
        return tuple(normalise_uri(each) for each in given)
    except DefinitionError as error:
        raise InvalidInput(str(error)) from error
