"""The page behind a signed link: GET shows the question and changes nothing, POST answers it.

What previews links, such as a mail program, only sends GET: it answers nothing.
"""

from collections.abc import Iterable, Iterator, Mapping
from html import escape
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

import msgspec
from aiohttp import web
from msgspec import Meta

from pubsubflow.api.auth.middleware import remote
from pubsubflow.api.http import routing
from pubsubflow.api.http.problems import BadRequest
from pubsubflow.api.http.requests import NoQuery, decode_body
from pubsubflow.api.http.responses import json_response
from pubsubflow.api.http.routing import Access, MediaBody, Route
from pubsubflow.api.routes.answers.approvals import (
    AnswerRequest,
    LinkClaim,
    read_claim,
    record_vote,
)
from pubsubflow.model.api.approvals import ApprovalView
from pubsubflow.model.wire.approvals import Vote
from pubsubflow.model.wire.audit_entries import AuditEntry
from pubsubflow.model.wire.commands import CommandHandler
from pubsubflow.store.auth import AuditLog
from pubsubflow.store.secrets.links import SignedLinks
from pubsubflow.store.values.approvals import ApprovalStore

_PATH = "/approve/{link}"
_FORM = "application/x-www-form-urlencoded"
_PAGE = MediaBody(("text/html", "application/json"), "The approval, for people or programs.")
_BODY = MediaBody(
    (_FORM, "application/json"), "The answer: `option`, and optionally `values` and `comment`."
)
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; form-action 'self'; frame-ancestors 'none'",
    # With `no-referrer` browsers would send the form with the origin `null`.
    "Referrer-Policy": "same-origin",
}
_decoder = msgspec.json.Decoder(AnswerRequest)
_values = msgspec.json.Decoder(dict[str, Any])


class ApprovalLinkRoutes:
    """Handlers of `/approve/{link}`.

    Args:
        commands: Records answers.
        store: Reads approvals.
        links: Verifies links.
        audit: Records who has answered.
    """

    def __init__(
        self, commands: CommandHandler, store: ApprovalStore, links: SignedLinks, audit: AuditLog
    ) -> None:
        self._commands = commands
        self._store = store
        self._links = links
        self._audit = audit

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        names = {"link": Annotated[str, Meta(description="The signed link.")]}
        yield routing.get(
            _PATH,
            self.show,
            access=Access.OPEN,
            query=NoQuery,
            responses={200: _PAGE},
            names=names,
        )
        yield routing.post(
            _PATH,
            self.answer,
            access=Access.OPEN,
            query=NoQuery,
            body=_BODY,
            responses={200: _PAGE},
            problems=(409,),
            names=names,
        )

    async def show(self, request: web.Request) -> web.Response:
        """Show the approval that a link is for; nothing is answered by it."""
        claim = await read_claim(self._links, request.match_info["link"])
        found = await self._store.get(UUID(claim.approval))
        return _respond(request, found, claim, form=found.state == "waiting")

    async def answer(self, request: web.Request) -> web.Response:
        """Answer the approval that a link is for, as the person that it was made for."""
        claim = await read_claim(self._links, request.match_info["link"])
        payload = await _payload(request, await request.read())
        vote = Vote(
            person=claim.person,
            role=claim.role,
            option=payload.option,
            values=payload.values,
            comment=payload.comment or None,
            via="link",
            remote=remote(request),
        )
        entry = AuditEntry(
            principal=claim.person,
            remote=vote.remote,
            action=f"POST {_PATH}",
            object=claim.approval,
        )
        number = await self._audit.record(entry)
        try:
            found = await record_vote(self._commands, self._store, UUID(claim.approval), vote)
        except BadRequest as error:
            await self._audit.finish(number, error.status)
            raise
        await self._audit.finish(number, HTTPStatus.OK)
        return _respond(request, found, claim, form=False)


async def _payload(request: web.Request, data: bytes) -> AnswerRequest:
    """Return the answer in a form or in JSON.

    Raises:
        BadRequest: It is neither, or malformed.
    """
    if request.content_type != _FORM:
        return decode_body(data, _decoder)
    form = await request.post()
    given: dict[str, Any] = {
        name: str(form[name]) for name in ("option", "comment") if name in form
    }
    if form.get("values"):
        given["values"] = decode_body(str(form["values"]).encode(), _values)
    return decode_body(msgspec.json.encode(given), _decoder)


def _respond(
    request: web.Request, found: ApprovalView, claim: LinkClaim, *, form: bool
) -> web.Response:
    if "text/html" not in request.headers.get("Accept", ""):
        return json_response(found)
    text = "\n".join(_page(found, claim, form=form))
    return web.Response(text=text, content_type="text/html", headers=_HEADERS)


def _page(found: ApprovalView, claim: LinkClaim, *, form: bool) -> Iterator[str]:
    """Yield the lines of the page."""
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width"><title>Approval</title></head><body>'
    yield f"<h1>{escape(found.title)}</h1>"
    if found.details:
        yield f"<p>{escape(found.details)}</p>"
    yield f"<p>DAG {escape(found.dag_id)}, task {escape(found.task_id)}, run {found.run_id}</p>"
    for vote in found.votes:
        yield f"<p>{escape(vote.person)}: {escape(vote.option)}</p>"
    if found.answer is not None:
        yield f"<p>The answer is <strong>{escape(found.answer)}</strong>.</p>"
    if form:
        yield f'<form method="post"><p>You answer as {escape(claim.person)}.</p>'
        yield from _fields(found.form)
        yield '<p><label>Comment <input name="comment" maxlength="4000"></label></p><p>'
        for option in found.options:
            yield f'<button name="option" value="{escape(option)}">{escape(option)}</button>'
        yield "</p></form>"
    yield "</body></html>"


def _fields(form: Mapping[str, Any] | None) -> Iterator[str]:
    if form:
        yield '<p><label>Values, in JSON<br><textarea name="values">{}</textarea></label></p>'
        yield f"<pre>{escape(msgspec.json.format(msgspec.json.encode(form)).decode())}</pre>"
