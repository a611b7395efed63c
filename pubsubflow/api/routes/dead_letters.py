"""Routes of dead letters: list, summarise, show, resend and discard what could not be processed."""

from collections.abc import Iterable
from typing import Annotated, Any
from uuid import UUID

import msgspec
from aiohttp import web
from msgspec import Meta, Struct, field

from pubsubflow.api.auth.middleware import note_object
from pubsubflow.api.auth.scopes import check_dag
from pubsubflow.api.http import routing
from pubsubflow.api.http.etags import expected_revisions, json_with_etag
from pubsubflow.api.http.pagination import Cursor, Number, read_cursor, seen_page, with_cursor
from pubsubflow.api.http.problems import BadRequest
from pubsubflow.api.http.requests import Limit, NoQuery, decode_body, parse_query
from pubsubflow.api.http.responses import encode, json_response
from pubsubflow.api.http.routing import Access, Route
from pubsubflow.api.http.shown import rights_of_request
from pubsubflow.api.routes.webhooks import DEAD_LETTER_KIND, WebhookRoutes
from pubsubflow.errors import InvalidInput, NotFound
from pubsubflow.model.api.explain import (
    DeadLetterDetail,
    DeadLetterSummary,
    DeadLetterView,
    DiscardedLetters,
    NotResent,
    Resent,
    ResentLetters,
)
from pubsubflow.model.api.resources import Page
from pubsubflow.model.auth import Role
from pubsubflow.model.revisions import Revisions
from pubsubflow.model.wire.commands import (
    CommandHandler,
    DiscardDeadLetters,
    RecordEvents,
    RedriveDeadLetter,
    RedrivePlan,
)
from pubsubflow.store.read.read_models import ReadModels

_LIST = "dead-letters"


class DeadLetterQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of the list of dead letters.

    Attributes:
        resent: Also those that were sent again or discarded.
        kind: Only those of this kind.
        dag: Only those of this DAG.
        reason: Only those with this reason, whole or as the summary has it.
    """

    limit: Limit = 50
    after: Cursor | None = None
    resent: bool = False
    kind: str | None = None
    dag: str | None = None
    reason: str | None = None


class SummaryQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of the summary."""

    limit: Limit = 50


class LetterSelection(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request about many open dead letters, the oldest first.

    Attributes:
        ids: Only these.
        kind: Only those of this kind.
        dag: Only those of this DAG.
        reason: Only those with this reason, whole or as the summary has it.
        every: All that the other fields select, where there is none.
        limit: How many at most.
        dry_run: To resend: only check them, and return what would happen; to discard: only return
            their numbers.
    """

    ids: Annotated[list[int], Meta(min_length=1, max_length=1000)] | None = None
    kind: str | None = None
    dag: str | None = None
    reason: str | None = None
    every: bool = field(name="all", default=False)
    limit: Limit = 100
    dry_run: bool = False


class ResendRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request to resend a dead letter.

    Attributes:
        payload: JSON in place of the letter's own; null to leave it.
        dry_run: Only check it, and return what would happen.
    """

    payload: Any = None
    dry_run: bool = False


_resend_decoder = msgspec.json.Decoder(ResendRequest)
_selection = msgspec.json.Decoder(LetterSelection)


class DeadLetterRoutes:
    """Handlers of `/api/v1/dead-letters`.

    Args:
        commands: Redrives dead letters.
        read_models: Reads dead letters.
        webhooks: Makes events of the requests in dead letters of webhooks.
    """

    def __init__(
        self, commands: CommandHandler, read_models: ReadModels, webhooks: WebhookRoutes
    ) -> None:
        self._commands = commands
        self._read_models = read_models
        self._webhooks = webhooks

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        several, one = "/api/v1/dead-letters", "/api/v1/dead-letters/{number}"
        yield routing.get(
            several,
            self.list_all,
            query=DeadLetterQuery,
            responses={200: Page[DeadLetterView]},
            etag=True,
        )
        yield routing.get(
            f"{several}/summary",
            self.summarise,
            query=SummaryQuery,
            responses={200: DeadLetterSummary},
            etag=True,
        )
        for name, handler, response in (
            ("resend", self.resend_selected, ResentLetters),
            ("discard", self.discard_selected, DiscardedLetters),
        ):
            yield routing.post(
                f"{several}/{name}",
                handler,
                access=Access.OPERATOR,
                query=NoQuery,
                body=LetterSelection,
                responses={200: response},
            )
        yield routing.get(
            one, self.show, query=NoQuery, responses={200: DeadLetterDetail}, etag=True
        )
        yield routing.post(
            f"{one}/resend",
            self.resend,
            access=Access.OPERATOR,
            query=NoQuery,
            body=ResendRequest,
            body_required=False,
            responses={200: Resent},
            problems=(409,),
            if_match=True,
        )

    async def list_all(self, request: web.Request) -> web.Response:
        """List dead letters, the newest first."""
        params = parse_query(request, DeadLetterQuery)
        after = read_cursor(_LIST, params.after, Number)
        page = await seen_page(
            lambda after, limit: self._read_models.dead_letters.page(
                limit=limit,
                after=after,
                settled=params.resent,
                kind=params.kind,
                dag_id=params.dag,
                reason=params.reason,
            ),
            after,
            params.limit,
        )
        return json_with_etag(request, with_cursor(_LIST, page))

    async def summarise(self, request: web.Request) -> web.Response:
        """Count the open dead letters by kind, DAG and reason, the most frequent first."""
        params = parse_query(request, SummaryQuery)
        return json_with_etag(
            request, await self._read_models.dead_letters.summary(limit=params.limit)
        )

    async def resend_selected(self, request: web.Request) -> web.Response:
        """Resend open dead letters as they are, one by one; what is refused holds up no other."""
        chosen = decode_body(await request.read(), _selection)
        ids, more = await self._selected(request, chosen)
        resent, refused = [], []
        for number in ids:
            try:
                resent.append(await self._resend(number, dry_run=chosen.dry_run))
            except (InvalidInput, NotFound) as error:
                refused.append(NotResent(id=number, reason=str(error)))
        return json_response(ResentLetters(resent=resent, refused=refused, more=more))

    async def discard_selected(self, request: web.Request) -> web.Response:
        """Discard open dead letters: they are kept until they are old, and cannot be resent."""
        chosen = decode_body(await request.read(), _selection)
        ids, more = await self._selected(request, chosen)
        discarded = ids
        if ids and not chosen.dry_run:
            discarded = await self._commands.execute(DiscardDeadLetters(tuple(ids)))
        return json_response(DiscardedLetters(discarded=discarded, more=more))

    async def _selected(
        self, request: web.Request, chosen: LetterSelection
    ) -> tuple[list[int], bool]:
        """Return the ids of the letters that a request selects, and whether there are more.

        Raises:
            BadRequest: It selects by nothing.
        """
        selecting = (chosen.ids, chosen.kind, chosen.dag, chosen.reason)
        if not chosen.every and all(each is None for each in selecting):
            raise BadRequest("select dead letters by ids, kind, dag or reason, or by all: true")
        note_object(request, msgspec.json.encode(chosen).decode())
        ids = await self._read_models.dead_letters.find_open(
            limit=chosen.limit + 1,
            ids=chosen.ids,
            kind=chosen.kind,
            dag_id=chosen.dag,
            reason=chosen.reason,
        )
        return ids[: chosen.limit], len(ids) > chosen.limit

    async def show(self, request: web.Request) -> web.Response:
        """Show a dead letter with its payload."""
        found = await self._seen(_number(request), Role.VIEWER)
        return json_with_etag(request, found, revision=found.revision)

    async def _seen(self, number: int, role: Role) -> DeadLetterDetail:
        """Return a dead letter of a DAG on which the principal of the request has a role.

        Raises:
            NotFound: It does not exist, or may not be seen.
            BadRequest: The role does not suffice (403).
        """
        letter = await self._read_models.dead_letters.get(number)
        rights = rights_of_request()
        if rights is None:
            return letter
        if letter.dag_id is None:
            if rights.sees_all and role is not Role.VIEWER:
                raise BadRequest(f"this needs the role {role} on everything", status=403)
            seen = rights.sees_all
        else:
            seen = rights.sees_dag(letter.dag_id)
        if not seen:
            raise NotFound("dead letter", str(number))
        if letter.dag_id is not None:
            check_dag(rights, letter.dag_id, role)
        return letter

    async def resend(self, request: web.Request) -> web.Response:
        """Resend a dead letter, as it is or edited; return the run that it started, if any."""
        number = _number(request)
        revisions = expected_revisions(request)
        payload = decode_body(await request.read() or b"{}", _resend_decoder)
        edit = None if payload.payload is None else encode(payload.payload)
        try:
            found = await self._resend(number, edit, revisions, dry_run=payload.dry_run)
        except BadRequest:
            raise
        except InvalidInput as error:
            if not payload.dry_run:
                raise
            found = Resent(id=number, dry_run=True, refused=str(error))
        return json_response(found)

    async def _resend(
        self,
        number: int,
        edit: bytes | None = None,
        revisions: Revisions = None,
        *,
        dry_run: bool = False,
    ) -> Resent:
        letter = await self._seen(number, Role.OPERATOR)
        if edit is not None and not letter.editable:
            raise BadRequest(
                f"dead letter {number} is a message in a binary format: resend it as it is, "
                "without payload",
                field="payload",
            )
        if dry_run:
            events = self._events(letter, edit) if letter.kind == DEAD_LETTER_KIND else None
            command = RedriveDeadLetter(number, edit, revisions, events, dry_run=True)
            plan: RedrivePlan = await self._commands.execute(command)
            return Resent(
                id=number, run_id=plan.run_id, dry_run=True, would=plan.text, params=plan.params
            )
        if letter.kind == DEAD_LETTER_KIND:
            events = self._events(letter, edit)
            await self._commands.execute(RedriveDeadLetter(number, edit, revisions, events))
            return Resent(id=number)
        run_id = await self._commands.execute(RedriveDeadLetter(number, edit, revisions))
        if run_id is not None:
            await self._check_started(number, UUID(run_id))
        return Resent(id=number, run_id=run_id)

    def _events(self, letter: DeadLetterDetail, edit: bytes | None) -> RecordEvents | None:
        """Return the event that a webhook's request becomes now; None for none."""
        # Resent or discarded: the manager refuses it, whatever the webhook would make of it now.
        if letter.resent_at is not None or letter.discarded_at is not None:
            return None
        return self._webhooks.event_of_letter(edit or encode(letter.payload), f"letter:{letter.id}")

    async def _check_started(self, number: int, run_id: UUID) -> None:
        """Check that the run exists; if it was refused again, a new dead letter holds it.

        Raises:
            BadRequest: It was refused again.
        """
        try:
            await self._read_models.runs.brief(run_id)
        except NotFound:
            newer = await self._read_models.dead_letters.find_newer(number)
            if newer is None:
                raise
            raise BadRequest(
                f"it was refused again: {newer.reason}; dead letter {newer.id} holds it now",
                status=409,
            ) from None


def _number(request: web.Request) -> int:
    text = request.match_info["number"]
    if not (text.isascii() and text.isdecimal()):
        raise NotFound("dead letter", text)
    return int(text)
