"""Routes of approvals: list, show and answer them, and make links for people without a token."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from pubsubflow.api.auth.middleware import PRINCIPAL, remote
from pubsubflow.api.auth.scopes import check_dag
from pubsubflow.api.http import routing
from pubsubflow.api.http.etags import json_with_etag
from pubsubflow.api.http.pagination import Number, read_cursor, seen_page, with_cursor
from pubsubflow.api.http.problems import BadRequest
from pubsubflow.api.http.requests import NoQuery, PageQuery, parse_body, parse_query
from pubsubflow.api.http.responses import json_response
from pubsubflow.api.http.routing import Access, Route
from pubsubflow.api.http.shown import rights_of_request
from pubsubflow.errors import NotFound
from pubsubflow.model.api.approvals import ApprovalView, SignedLink
from pubsubflow.model.api.resources import Page
from pubsubflow.model.auth import Role
from pubsubflow.model.runs.approvals import ApprovalClosed, NotEntitled
from pubsubflow.model.wire.approvals import Vote
from pubsubflow.model.wire.commands import AnswerApproval, CommandHandler
from pubsubflow.store.secrets.links import SignedLinks
from pubsubflow.store.values.approvals import ApprovalStore

_LIST = "approvals"
_ONE = "/api/v1/approvals/{approval}"
Text = Annotated[str, Meta(min_length=1, max_length=512)]
_NAMES = {"approval": Annotated[UUID, Meta(description="Id of the approval.")]}


class AnswerRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of an answer.

    Attributes:
        option: One of the approval's options.
        values: What is filled into its form, if it has one.
        comment: For people.
    """

    option: Text
    values: dict[str, Any] = {}
    comment: Annotated[str, Meta(max_length=4000)] | None = None


class LinkRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request for a link.

    Attributes:
        person: Who is to answer by it.
        seconds: How long it holds.
    """

    person: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")]
    seconds: Annotated[int, Meta(ge=1, le=30 * 86400)] = 86400


class LinkClaim(Struct, frozen=True, array_like=True):
    """What a signed link stands for.

    Attributes:
        approval: Id of the approval, which is all that it is good for.
        role: Role of the one who made it.
        until: Seconds since 1970.
    """

    approval: str
    person: str
    role: str
    until: int


_answer_decoder = msgspec.json.Decoder(AnswerRequest)
_link_decoder = msgspec.json.Decoder(LinkRequest)
_encode_claim = msgspec.msgpack.Encoder().encode
_decode_claim = msgspec.msgpack.Decoder(LinkClaim).decode


class ApprovalRoutes:
    """Handlers of `/api/v1/approvals`.

    Args:
        commands: Records answers.
        store: Reads approvals.
        links: Signs links.
    """

    def __init__(self, commands: CommandHandler, store: ApprovalStore, links: SignedLinks) -> None:
        self._commands = commands
        self._store = store
        self._links = links

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        yield routing.get(
            "/api/v1/approvals",
            self.list_approvals,
            query=PageQuery,
            responses={200: Page[ApprovalView]},
            etag=True,
        )
        yield routing.get(
            _ONE,
            self.show,
            query=NoQuery,
            responses={200: ApprovalView},
            names=_NAMES,
            etag=True,
        )
        yield routing.post(
            _ONE,
            self.answer,
            access=Access.OPERATOR,
            query=NoQuery,
            body=AnswerRequest,
            responses={200: ApprovalView},
            problems=(409,),
            names=_NAMES,
        )
        yield routing.post(
            f"{_ONE}/links",
            self.make_link,
            access=Access.ADMIN,
            query=NoQuery,
            body=LinkRequest,
            responses={201: SignedLink},
            names=_NAMES,
        )

    async def list_approvals(self, request: web.Request) -> web.Response:
        """List the approvals that wait for answers, the newest first."""
        params = parse_query(request, PageQuery)
        after = read_cursor(_LIST, params.after, Number)
        page = await seen_page(
            lambda after, limit: self._store.page(limit=limit, after=after), after, params.limit
        )
        return json_with_etag(request, with_cursor(_LIST, page))

    async def show(self, request: web.Request) -> web.Response:
        """Show an approval and its answers."""
        return json_with_etag(request, await self._seen(request, Role.VIEWER))

    async def answer(self, request: web.Request) -> web.Response:
        """Answer an approval; return it.

        The answer counts if `by` names the token's role or name. A person answers once.
        """
        payload = await parse_body(request, _answer_decoder)
        found = await self._seen(request, Role.OPERATOR)
        vote = Vote(
            # Approvals name people as the provider does.
            person=request[PRINCIPAL].name.removeprefix("oidc:"),
            role=_role(request, found),
            option=payload.option,
            values=payload.values,
            comment=payload.comment,
            remote=remote(request),
        )
        return json_response(await record_vote(self._commands, self._store, UUID(found.id), vote))

    async def make_link(self, request: web.Request) -> web.Response:
        """Make a link by which one person answers this approval without a token, for a while.

        Its answer counts if `by` names the person, or the role of the one who makes it.
        """
        payload = await parse_body(request, _link_decoder)
        found = await self._seen(request, Role.ADMIN)
        until = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=payload.seconds)
        role = _role(request, found)
        claim = LinkClaim(found.id, payload.person, role, int(until.timestamp()))
        signed = await self._links.sign(_encode_claim(claim))
        path = f"/approve/{signed}"
        link = SignedLink(person=payload.person, path=path, expires_at=until)
        return json_response(link, status=201)

    async def _seen(self, request: web.Request, role: Role) -> ApprovalView:
        """Return the approval that a path names, of a DAG on which the principal has a role.

        Raises:
            NotFound: It does not exist, or may not be seen.
            BadRequest: The role does not suffice (403).
        """
        found = await self._store.get(_approval(request))
        rights = rights_of_request()
        if rights is not None and not rights.sees_dag(found.dag_id):
            raise NotFound("approval", found.id)
        check_dag(rights, found.dag_id, role)
        return found


def _role(request: web.Request, found: ApprovalView) -> Role:
    """Return the role that counts for an approval: on its DAG, if that is greater."""
    rights = rights_of_request()
    return request[PRINCIPAL].role if rights is None else rights.role_on_dag(found.dag_id)


async def record_vote(
    commands: CommandHandler, store: ApprovalStore, approval: UUID, vote: Vote
) -> ApprovalView:
    """Record a vote and return its approval.

    Raises:
        NotFound: No approval with this id waits.
        BadRequest: The person may not answer (403), or the approval is closed (409).
        InvalidInput: The option is unknown, or the values do not fit the form.
    """
    try:
        await commands.execute(AnswerApproval(str(approval), vote))
    except NotEntitled as error:
        raise BadRequest(str(error), status=403) from error
    except ApprovalClosed as error:
        raise BadRequest(str(error), status=409) from error
    return await store.get(approval)


async def read_claim(links: SignedLinks, link: str) -> LinkClaim:
    """Return what a link stands for.

    Raises:
        NotFound: It was not signed here, or has expired.
    """
    payload = await links.verify(link)
    try:
        claim = None if payload is None else _decode_claim(payload)
    except msgspec.DecodeError:
        claim = None
    if claim is None or claim.until < datetime.now(UTC).timestamp() or claim.role not in set(Role):
        raise NotFound("link, or it has expired", f"{link[:8]}…")
    return claim


def _approval(request: web.Request) -> UUID:
    text = request.match_info["approval"]
    try:
        return UUID(text)
    except ValueError:
        raise NotFound("approval", text) from None
