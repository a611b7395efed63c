"""Tokens and roles decide what a principal may do.

A token is `psf_` and 256 random bits in URL-safe base64. Only its SHA-256 is stored: so many random
bits cannot be guessed from their digest, so no slow hash is needed.
"""

import re
import secrets
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Literal, get_args
from urllib.parse import quote
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


_RANKS = {Role.EMITTER: 0, Role.VIEWER: 1, Role.OPERATOR: 2, Role.ADMIN: 3}
GrantKind = Literal["dag", "tag", "dataset"]
_GRANT = re.compile(r"(?P<role>\w+):(?P<kind>\w+)=(?P<pattern>.+)\Z", re.DOTALL)
_MAX_PATTERN = 512
MAX_GRANTS = 100
"""How many grants a token may have."""


class Grant(Struct, frozen=True):
    """A role on some DAGs or datasets, beside the role on everything.

    Attributes:
        kind: What the pattern is of: the ids of DAGs, their tags, or URIs.
        pattern: `*` stands for any characters; in a URI for those of one segment, `**` for any.
    """

    role: Role
    kind: GrantKind
    pattern: str

    def __str__(self) -> str:
        """Return it as people write it: `operator:dag=sales_*`."""
        return f"{self.role}:{self.kind}={self.pattern}"

    def fits(self, text: str) -> bool:
        """Whether a DAG's id, a tag or a normalised URI matches, in linear time."""
        pattern = self.pattern
        if self.kind != "dataset":
            pattern = pattern.replace("*", "**")
        return text == pattern or matches(pattern, text)

    @classmethod
    def parse(cls, text: str) -> "Grant":
        """Return the grant that a text such as `operator:tag=team:sales` stands for.

        Raises:
            InvalidInput: It is none.
        """
        found = _GRANT.match(text)
        if found is None or found["kind"] not in get_args(GrantKind):
            raise InvalidInput(
                f"{text!r} is not a grant: write ROLE:dag=PATTERN, ROLE:tag=PATTERN or "
                "ROLE:dataset=PATTERN, for example operator:dag=sales_*"
            )
        role, pattern = found["role"], found["pattern"]
        if role not in (Role.VIEWER, Role.OPERATOR, Role.ADMIN):
            raise InvalidInput(f"{text!r} grants no role: use viewer, operator or admin")
        if len(pattern) > _MAX_PATTERN or not pattern.isprintable():
            raise InvalidInput(f"the pattern of a grant has at most {_MAX_PATTERN} characters")
        try:
            pattern = normalise_uri(pattern) if found["kind"] == "dataset" else pattern
        except DefinitionError as error:
            raise InvalidInput(str(error)) from error
        return cls(Role(role), found["kind"], pattern)  # type: ignore[arg-type] # checked above


def known_grants(texts: Iterable[str]) -> tuple[Grant, ...]:
    """Return stored grants; one that a newer version wrote in another form grants nothing."""
    found = []
    # To grant less than was meant is safe, and a daemon of before must not fail on all tokens.
    for each in texts:
        try:
            found.append(Grant.parse(each))
        except InvalidInput:
            continue
    return tuple(found)


class Rights(Struct, frozen=True, eq=False):
    """What a principal with grants may see and do.

    Attributes:
        base: Its role on everything.
        tags_of: Returns the tags of a DAG.
        dags: Returns the ids of all DAGs.
    """

    base: Role
    grants: tuple[Grant, ...]
    tags_of: Callable[[str], Collection[str]]
    dags: Callable[[], Collection[str]]

    @property
    def sees_all(self) -> bool:
        """Whether it sees everything that a viewer does."""
        return self.base is not Role.EMITTER

    def role_on_dag(self, dag_id: str) -> Role:
        """Return its greatest role on a DAG; that of an emitter if it has none."""
        tags = self.tags_of(dag_id)
        roles = [
            each.role
            for each in self.grants
            if (each.kind == "dag" and each.fits(dag_id))
            or (each.kind == "tag" and any(map(each.fits, tags)))
        ]
        return max([self.base, *roles], key=_RANKS.__getitem__)

    def role_on_dataset(self, uri: str) -> Role:
        """Return its greatest role on a dataset, by its normalised URI; likewise."""
        roles = [each.role for each in self.grants if each.kind == "dataset" and each.fits(uri)]
        return max([self.base, *roles], key=_RANKS.__getitem__)

    def sees_dag(self, dag_id: str) -> bool:
        """Whether it sees a DAG, its runs and their tasks."""
        return self.may_on_dag(Role.VIEWER, dag_id)

    def sees_dataset(self, uri: str) -> bool:
        """Whether it sees a dataset and its events."""
        return covers(self.role_on_dataset(uri), Role.VIEWER)

    def may_on_dag(self, role: Role, dag_id: str) -> bool:
        """Whether it has at least a role on a DAG."""
        return covers(self.role_on_dag(dag_id), role)

    def dags_with(self, role: Role) -> list[str] | None:
        """Return the ids of the DAGs on which it has at least a role; None for all."""
        if covers(self.base, role):
            return None
        return [dag_id for dag_id in self.dags() if self.may_on_dag(role, dag_id)]

    def seen_datasets(self) -> list[str] | None:
        """Return the patterns of the datasets that it sees; None for all."""
        if self.sees_all:
            return None
        return [each.pattern for each in self.grants if each.kind == "dataset"]


def covers(role: Role, least: Role) -> bool:
    """Whether a role has at least the rights of another."""
    return _RANKS[role] >= _RANKS[least]


class Token(Struct, frozen=True, kw_only=True):
    """A token as it is checked.

    Attributes:
        role: Its role on everything.
        digest: SHA-256 of the token.
        datasets: Patterns or URIs of the datasets whose events an emitter may post.
        expires_at: When it expires; never if None.
        grants: Its roles on some DAGs and datasets.
    """

    id: UUID
    name: str
    role: Role
    digest: bytes
    datasets: tuple[str, ...] = ()
    expires_at: datetime | None = None
    grants: tuple[Grant, ...] = ()

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
        role: Of a person who signed in by OpenID Connect; None where a token's counts, or none.
        grants: Roles of that person on some DAGs and datasets.
    """

    id: UUID
    name: str
    token: UUID | None
    owner: bool = False
    digest: bytes | None
    expires_at: datetime
    role: Role | None = None
    grants: tuple[Grant, ...] = ()

    def is_live(self, now: datetime) -> bool:
        """Whether it has not expired."""
        return now < self.expires_at


class Credentials(Struct, frozen=True):
    """What requests are authenticated by.

    Attributes:
        any_created: Whether any token was ever created, revoked ones included.
        tokens: Those that are neither revoked nor expired.
        sessions: Those that have signed in, and have neither ended nor expired.
    """

    any_created: bool
    tokens: Sequence[Token]
    sessions: Sequence[Session]


class Principal(Struct, frozen=True, kw_only=True):
    """The identity under which a request is authorised.

    Attributes:
        name: The token's name; `local` where none is needed.
        token: The token's id, if it is a stored one.
        datasets: The datasets whose events an emitter may post; None for no limit.
        session: The session's id, for a browser that has signed in.
        owner: Whether it is the owner of a daemon's home.
        grants: Its roles on some DAGs and datasets.
        person: Whether it is a person who signed in by OpenID Connect.
    """

    name: str
    role: Role
    token: UUID | None = None
    datasets: tuple[str, ...] | None = None
    session: UUID | None = None
    owner: bool = False
    grants: tuple[Grant, ...] = ()
    person: bool = False

    def may_post(self, uri: str) -> bool:
        """Whether events of a dataset, by its normalised URI, may be posted."""
        limits = self.postable
        return limits is None or any(uri == each or matches(each, uri) for each in limits)

    @property
    def postable(self) -> tuple[str, ...] | None:
        """Patterns of the datasets whose events may be posted; None for all."""
        if self.datasets is None:
            return None
        granted = (
            each.pattern
            for each in self.grants
            if each.kind == "dataset" and covers(each.role, Role.OPERATOR)
        )
        return (*self.datasets, *granted)

    @classmethod
    def of(cls, token: Token, *, session: UUID | None = None) -> "Principal":
        """Return the principal that a token identifies, or a session of it."""
        limits = _limits(token.role, token.datasets, token.grants)
        return cls(
            name=token.name,
            role=token.role,
            token=token.id,
            datasets=limits,
            session=session,
            grants=token.grants,
        )

    @classmethod
    def of_person(cls, session: Session, role: Role) -> "Principal":
        """Return the principal of a person who signed in by OpenID Connect."""
        return cls(
            name=session.name,
            role=role,
            session=session.id,
            datasets=_limits(role, (), session.grants),
            grants=session.grants,
            person=True,
        )


def _limits(
    role: Role, datasets: tuple[str, ...], grants: tuple[Grant, ...]
) -> tuple[str, ...] | None:
    """Return the datasets whose events a role may post by itself; None for no limit."""
    # A viewer posts nothing by its role, so its routes need no limit unless it has grants.
    return datasets if role is Role.EMITTER or (role is Role.VIEWER and grants) else None


def name_of_owner(person: str | None) -> str:
    """Return the name under which the owner of a daemon's home signs in.

    No token's name has a colon, so it is never taken for one.

    Args:
        person: Who it is, such as the name of an account; None if that is not said.

    Raises:
        InvalidInput: It is not a name as tokens have one.
    """
    return LOCAL if person is None else f"{LOCAL}:{check_name(person)}"


def name_of_person(name: str) -> str:
    """Return the name of a person who signed in by OpenID Connect; no token's name has a colon.

    Different names stay different: what cannot be printed is percent-encoded.
    """
    plain = (each.isprintable() and each not in " %" for each in name)
    parts = zip(name, plain, strict=True)
    return "oidc:" + "".join(each if keep else quote(each, safe="") for each, keep in parts)


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


def check_limits(
    role: Role, datasets: Iterable[str], grants: Collection[Grant] = ()
) -> tuple[str, ...]:
    """Return the patterns of an emitter, normalised.

    Raises:
        InvalidInput: An emitter has neither patterns nor grants, another role has patterns, or one
            is malformed.
    """
    given = tuple(datasets)
    if role is Role.EMITTER and not given and not grants:
        raise InvalidInput("an emitter is limited to datasets: name them or their patterns")
    if len(grants) > MAX_GRANTS:
        raise InvalidInput(f"{len(grants)} grants are too many: at most {MAX_GRANTS}")
    if role is not Role.EMITTER and given:
        raise InvalidInput(f"only an emitter is limited to datasets; a token of role {role} is not")
    try:
        return tuple(normalise_uri(each) for each in given)
    except DefinitionError as error:
        raise InvalidInput(str(error)) from error
