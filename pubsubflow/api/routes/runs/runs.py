"""Routes of runs: list, show, explain, wait for, annotate and cancel them."""

from collections.abc import Iterable
from typing import Annotated
from uuid import UUID

import anyio
import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from pubsubflow.api.http import routing
from pubsubflow.api.http.etags import json_with_etag
from pubsubflow.api.http.pagination import read_cursor, with_cursor
from pubsubflow.api.http.problems import BadRequest
from pubsubflow.api.http.requests import NoQuery, decode_body, parse_body, parse_query, run_id
from pubsubflow.api.http.responses import json_response
from pubsubflow.api.http.routing import Access, Route
from pubsubflow.api.routes.runs.filters import RunsQuery, Several, Tag, filter_of
from pubsubflow.errors import InvalidInput
from pubsubflow.model.api.explain import Explanation
from pubsubflow.model.api.resources import Page, RunDetail, RunView
from pubsubflow.model.runs.states import RunState
from pubsubflow.model.wire.commands import AnnotateRun, CancelRun, CommandHandler
from pubsubflow.store.read.read_models import ReadModels
from pubsubflow.wakeup import Wakeups

_LIST = "runs"
_SWEEP_SECONDS = 5.0


class WaitQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of a wait.

    Attributes:
        timeout: Seconds to wait at most.
    """

    timeout: Annotated[float, Meta(ge=0, le=300)] = 30.0


class CancelRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request to cancel a run.

    Attributes:
        reason: Why it is cancelled: one line for people.
    """

    reason: Annotated[str, Meta(min_length=1, max_length=512)] = "cancelled through the API"


class AnnotateRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request to change the tags and the note of a run.

    Attributes:
        tags: All of its tags; those that it has stay if left out.
        add_tags: Tags to add.
        remove_tags: Tags to remove.
        note: A text for people; empty to remove the note, which stays if left out.
    """

    tags: Annotated[tuple[Tag, ...], Several] | None = None
    add_tags: Annotated[tuple[Tag, ...], Several] = ()
    remove_tags: Annotated[tuple[Tag, ...], Several] = ()
    note: Annotated[str, Meta(max_length=10_000)] | None = None


_cancellation = msgspec.json.Decoder(CancelRequest)
_annotation = msgspec.json.Decoder(AnnotateRequest)


class RunRoutes:
    """Handlers of `/api/v1/runs`."""

    def __init__(self, commands: CommandHandler, read_models: ReadModels, wakeups: Wakeups) -> None:
        self._commands = commands
        self._read_models = read_models
        self._wakeups = wakeups

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        one = "/api/v1/runs/{run_id}"
        yield routing.get(
            "/api/v1/runs",
            self.list_runs,
            query=RunsQuery,
            responses={200: Page[RunView]},
            problems=(404,),
            etag=True,
        )
        yield routing.get(one, self.show, query=NoQuery, responses={200: RunDetail}, etag=True)
        yield routing.get(
            f"{one}/explain", self.explain, query=NoQuery, responses={200: Explanation}
        )
        yield routing.get(
            f"{one}/wait",
            self.wait,
            query=WaitQuery,
            responses={200: RunDetail},
            allow_head=False,
        )
        yield Route(
            method="PATCH",
            path=one,
            handler=self.annotate,
            access=Access.OPERATOR,
            query=NoQuery,
            body=AnnotateRequest,
            responses={200: RunDetail},
        )
        yield routing.post(
            f"{one}/cancel",
            self.cancel,
            access=Access.OPERATOR,
            query=NoQuery,
            body=CancelRequest,
            body_required=False,
            responses={200: RunDetail},
            problems=(409,),
        )

    async def list_runs(self, request: web.Request) -> web.Response:
        """List runs, the newest first."""
        params = parse_query(request, RunsQuery)
        page = await self._read_models.runs.page(
            filter_of(params),
            limit=params.limit,
            after=read_cursor(_LIST, params.after, UUID),
        )
        return json_with_etag(request, with_cursor(_LIST, page))

    async def show(self, request: web.Request) -> web.Response:
        """Show a run."""
        return json_with_etag(request, await self._read_models.runs.get(run_id(request)))

    async def explain(self, request: web.Request) -> web.Response:
        """Show why a run exists: the events it consumed and the runs that emitted them."""
        return json_response(await self._read_models.runs.explain(run_id(request)))

    async def wait(self, request: web.Request) -> web.Response:
        """Wait until a run has ended, or until the timeout; return it."""
        key, params = run_id(request), parse_query(request, WaitQuery)
        give_up = anyio.current_time() + params.timeout
        async with self._wakeups.on(f"psf.evt.run.{key}") as wakeup:
            while True:
                run = await self._read_models.runs.get(key)
                left = give_up - anyio.current_time()
                if RunState(run.state).final or left <= 0 or self._wakeups.stopping:
                    return json_response(run)
                await wakeup.wait(min(left, _SWEEP_SECONDS))

    async def annotate(self, request: web.Request) -> web.Response:
        """Change the tags and the note of a run; return it."""
        key = run_id(request)
        payload = await parse_body(request, _annotation)
        await self._commands.execute(AnnotateRun(key, **msgspec.structs.asdict(payload)))
        return json_response(await self._read_models.runs.get(key))

    async def cancel(self, request: web.Request) -> web.Response:
        """Cancel a run and its tasks; return it."""
        key = run_id(request)
        payload = decode_body(await request.read() or b"{}", _cancellation)
        try:
            await self._commands.execute(CancelRun(key, payload.reason))
        except InvalidInput as error:
            raise BadRequest(str(error), status=409) from error
        return json_response(await self._read_models.runs.get(key))
