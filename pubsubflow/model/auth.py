"""Tokens and roles decide what a principal may do.

A token is `psf_` and 256 random bits in URL-safe base64. Only its SHA-256 is stored: so many random
bits cannot be guessed from their digest, so no slow hash is needed.
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

LOCAL = "local"
"""Name of the principal that needs no token, or shows the one in its daemon's home."""

ANONYMOUS = "anonymous"
"""Name of a principal without a valid token, in the audit log."""

PREFIX = "psf_"
_SECRET_BYTES = 32
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}\Z")


class Role(StrEnum):
    """What a token's holder may do.

    `VIEWER` reads everything but tokens and the audit log; `EMITTER` posts events of some datasets
    and reads nothing; `OPERATOR` also starts, cancels and changes; `ADMIN` also manages tokens and
    connections.
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

    def is_live(self, now: datetime) -> bool:
        """Whether it has not expired."""
        return self.expires_at is None or now < self.expires_at


class Session(Struct, frozen=True, kw_only=True):
    """A browser that has signed in to the page.

    Attributes:
        name: The principal's name.
        token: The token whose role it has; None where none was needed.
        owner: Whether it is of the owner of a daemon's home, who may do everything.
        digest: SHA-256 of its cookie; None until its link was followed.
    """

    id: UUID
    name: str
    token: UUID | None
    owner: bool = False
    digest: bytes | None
    expires_at: datetime

    def is_live(self, now: datetime) -> bool:
        """Whether it has not expired."""
        return now < self.expires_at


class Principal(Struct, frozen=True, kw_only=True):
    """The identity under which a request is authorised.

    Attributes:
        name: The token's name; `local` where none is needed.
        token: The token's id, if it is a stored one.
        datasets: The datasets whose events an emitter may post; None for no limit.
        session: The session's id, for a browser that has signed in.
        owner: Whether it is the owner of a daemon's home.
    """

    name: str
    role: Role
    token: UUID | None = None
    datasets: tuple[str, ...] | None = None
    session: UUID | None = None
    owner: bool = False

    def may_post(self, uri: str) -> bool:
        """Whether events of a dataset, by its normalised URI, may be posted."""
        limits = self.datasets
        return limits is None or any(uri == each or matches(each, uri) for each in limits)

    @classmethod
    def of(cls, token: Token, *, session: UUID | None = None) -> "Principal":
        """Return the principal that a token identifies, or a session of it."""
        limits = token.datasets if token.role is Role.EMITTER else None
        return cls(
            name=token.name, role=token.role, token=token.id, datasets=limits, session=session
        )


def name_of_owner(person: str | None) -> str:
    """Return the name under which the owner of a daemon's home signs in.

    No token's name has a colon, so it is never taken for one.

    Args:
        person: Who it is, such as the name of an account; None if that is not said.

    Raises:
        InvalidInput: It is not a name as tokens have one.
    """
    return LOCAL if person is None else f"{LOCAL}:{check_name(person)}"


def new_token() -> str:
    """Return the text of a new token."""
    return PREFIX + secrets.token_urlsafe(_SECRET_BYTES)


def digest_of(secret: str) -> bytes:
    """Return the SHA-256 of a token, which is all that is stored of it."""
    # A header may hold bytes that are not UTF-8: such a token must be refused, not raise here.
    return sha256(secret.encode(errors="surrogateescape")).digest()


def check_name(name: str) -> str:
    """Return a token's name if it is valid.

    Raises:
        InvalidInput: It is not.
    """
    if not _NAME.match(name):
        raise InvalidInput(
            f"{name!r} is not a token name: use up to 64 letters, digits and . _ @ -, beginning "
            "with a letter or a digit"
        )
    return name


def check_limits(role: Role, datasets: Iterable[str]) -> tuple[str, ...]:
    """Return the patterns of an emitter, normalised.

    Raises:
        InvalidInput: An emitter has none, another role has some, or one is malformed.
    """
    given = tuple(datasets)
    if role is Role.EMITTER and not given:
        raise InvalidInput("an emitter is limited to datasets: name them or their patterns")
    if role is not Role.EMITTER and given:
        raise InvalidInput(f"only an emitter is limited to datasets; a token of role {role} is not")
    try:
        return tuple(normalise_uri(each) for each in given)
    except DefinitionError as error:
        raise InvalidInput(str(error)) from error
