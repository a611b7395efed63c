"""JSON types of tokens, of sessions and of the audit log."""

from datetime import datetime

from msgspec import Struct, field

from pubsubflow.model.auth import Role


class TokenView(Struct, frozen=True, kw_only=True):
    """A token without its secret.

    Attributes:
        datasets: Patterns of the datasets whose events an emitter may post.
        state: `live`, `expired` or `revoked`.
        created_by: The principal that created it: a token's name, or `local`.
        used_at: When it was last used, to about a minute.
        grants: Its roles on some DAGs and datasets, such as `operator:dag=sales_*`.
    """

    id: str
    name: str
    role: Role
    datasets: tuple[str, ...]
    state: str
    created_at: datetime
    created_by: str
    expires_at: datetime | None = None
    used_at: datetime | None = None
    revoked_at: datetime | None = None
    grants: tuple[str, ...] = ()


class NewToken(TokenView, frozen=True, kw_only=True):
    """A token that was just created.

    Attributes:
        token: Its text, which is shown only here.
    """

    token: str


class AuditView(Struct, frozen=True, kw_only=True):
    """An entry of the audit log: a change, or a refused attempt.

    Attributes:
        principal: The token's name; `local` where none is needed, `anonymous` without a valid one.
        token: The token's id.
        remote: The client's address.
        action: Method and path, with the parameters' names in braces.
        object: The object that was changed, such as a DAG's id.
        status: HTTP status of the response; None if there was none.
        times: Number of equal attempts that this entry stands for.
    """

    id: int
    at: datetime
    principal: str = field(name="asker")  # the API's key
    token: str | None = None
    remote: str | None = None
    action: str
    object: str | None = None
    status: int | None = None
    times: int = 1


class MeView(Struct, frozen=True, kw_only=True):
    """The principal of a request, and what it may do.

    Attributes:
        name: The principal's name, as the audit log has it.
        role: Its role on everything; with `dag`, on that DAG.
        via: `session`, `token`, or `none` where no token is needed.
        datasets: The datasets whose events an emitter may post; None for no limit.
        sign_in: Whether this server requires a token.
        version: The version of the server.
        session: The session's id, for a browser that has signed in.
        expires_at: When it ends.
        grants: Its roles on some DAGs and datasets, such as `operator:dag=sales_*`.
    """

    name: str
    role: Role
    via: str
    datasets: tuple[str, ...] | None = None
    sign_in: bool
    version: str
    session: str | None = None
    expires_at: datetime | None = None
    grants: tuple[str, ...] = ()


class SessionView(Struct, frozen=True, kw_only=True):
    """A browser that has signed in.

    Attributes:
        name: The principal's name.
        token: The id of the token whose role it has; None where none was needed.
        agent: The browser, as it calls itself.
        remote: The address that it signed in from.
        used_at: When it was last used, to about a minute.
        ended_at: When it was signed out or revoked.
    """

    id: str
    name: str
    token: str | None = None
    agent: str | None = None
    remote: str | None = None
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None = None
    ended_at: datetime | None = None


class SignInMethods(Struct, frozen=True, kw_only=True):
    """How a browser may sign in, besides a token and a link.

    Attributes:
        oidc: The name of the provider at `/auth/sign-in`; None without one.
        sign_in: Whether this server requires that one signs in.
    """

    oidc: str | None = None
    sign_in: bool


class SignedOut(Struct, frozen=True, kw_only=True):
    """The end of a session of a person.

    Attributes:
        url: Where the person signs out at the provider too.
    """

    url: str


class SignInLink(Struct, frozen=True, kw_only=True):
    """A link by which a browser signs in, once.

    Attributes:
        path: Its path on this server; the code stands behind `#`, so no log has it.
    """

    name: str
    path: str
    expires_at: datetime
