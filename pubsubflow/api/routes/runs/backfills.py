"""Routes of backfills: request one, list, show, wait for, pause, resume and cancel them."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import anyio
import msgspec
from aiohttp import web
from msgspec import Meta, Struct, field

from pubsubflow.api.auth.middleware import PRINCIPAL
from pubsubflow.api.auth.scopes import check_dag
from pubsubflow.api.http import routing
from pubsubflow.api.http.pagination import Cursor, read_cursor, seen_page, with_cursor
from pubsubflow.api.http.problems import BadRequest
from pubsubflow.api.http.requests import (
    Limit,
    NoQuery,
    PageQuery,
    decode_body,
    parse_body,
    parse_query,
    to_utc,
)
from pubsubflow.api.http.responses import json_response
from pubsubflow.api.http.routing import Access, Route
from pubsubflow.api.http.shown import rights_of_request
from pubsubflow.api.routes.runs.filters import Moment, Several, Text
from pubsubflow.api.routes.runs.plans import MOST_LISTED, Listed, planned_runs
from pubsubflow.errors import InvalidInput, NotFound
from pubsubflow.model.api.backfills import BackfillView, PlannedRunView
from pubsubflow.model.api.explain import PlannedRuns
from pubsubflow.model.api.resources import Page
from pubsubflow.model.schedule.backfills import (
    MAX_ACTIVE_RUNS,
    MAX_PLANNED_RUNS,
    BackfillState,
)
from pubsubflow.model.wire.commands import (
    Backfill,
    CancelRun,
    ChangeBackfill,
    CommandHandler,
    RunPlan,
)
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.store.read.read_models import ReadModels
from pubsubflow.store.read.runs.backfills import PlanPosition
from pubsubflow.wakeup import Wakeups

_LIST, _PLAN = "backfills", "plan"
_SWEEP_SECONDS = 5.0
_ONE = "/api/v1/backfills/{backfill_id}"


class BackfillRequest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The body of a request for a backfill.

    Attributes:
        since, until: Bounds of the ticks; `to` is exclusive, now if left out.
        partitions: Partition keys, in place of ticks.
        params: Values in place of the DAG's defaults.
        dry_run: Only return which runs would start.
        again: Also start runs that exist.
        only_failed: Also start runs whose last one failed or was cancelled.
        newest_first: Begin with the latest tick, or the last partition.
        max_active_runs: How many of its runs may be active, apart from the other runs of the DAG;
            if left out, they count against the DAG's own limit.
        description: A line for people.
        limit: How many runs of the plan the answer lists at most.
    """

    since: Moment | None = field(name="from", default=None)
    until: Moment | None = field(name="to", default=None)
    partitions: Annotated[tuple[Text, ...], Meta(max_length=MAX_PLANNED_RUNS)] = ()
    params: dict[str, Any] | None = None
    dry_run: bool = False
    again: bool = False
    only_failed: bool = False
    newest_first: bool = False
    max_active_runs: Annotated[int, Meta(ge=1, le=MAX_ACTIVE_RUNS)] | None = None
    description: Text | None = None
    limit: Listed = MOST_LISTED


class BackfillQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of the list of backfills.

    Attributes:
        dag: Only those of this DAG.
        state: Only those in one of these states; given by repetition.
    """

    dag: str | None = None
    state: Annotated[list[BackfillState], Several] = []
    limit: Limit = 50
    after: Cursor | None = None


class BackfillWaitQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of a wait.

    Attributes:
        timeout: Seconds to wait at most.
    """

    timeout: Annotated[float, Meta(ge=0, le=300)] = 30.0


class BackfillChange(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request to pause a backfill.

    Attributes:
        reason: Why: one line for people.
    """

    reason: Text | None = None


class BackfillCancellation(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request to cancel a backfill.

    Attributes:
        reason: Why: one line for people.
        running: Also cancel the runs that it has made and that have not ended.
    """

    reason: Text | None = None
    running: bool = False


_request = msgspec.json.Decoder(BackfillRequest)
_change = msgspec.json.Decoder(BackfillChange)
_cancellation = msgspec.json.Decoder(BackfillCancellation)


class BackfillRoutes:
    """Handlers of `/api/v1/backfills` and `/api/v1/dags/{dag_id}/backfill`."""

    def __init__(self, commands: CommandHandler, read_models: ReadModels, wakeups: Wakeups) -> None:
        self._commands = commands
        self._read_models = read_models
        self._wakeups = wakeups

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        yield routing.post(
            "/api/v1/dags/{dag_id}/backfill",
            self.backfill,
            access=Access.OPERATOR,
            query=NoQuery,
            body=BackfillRequest,
            responses={200: PlannedRuns},
        )
        yield routing.get(
            "/api/v1/backfills",
            self.list_all,
            query=BackfillQuery,
            responses={200: Page[BackfillView]},
            problems=(404,),
        )
        yield routing.get(_ONE, self.show, query=NoQuery, responses={200: BackfillView})
        yield routing.get(
            f"{_ONE}/plan", self.plan, query=PageQuery, responses={200: Page[PlannedRunView]}
        )
        yield routing.get(
            f"{_ONE}/wait",
            self.wait,
            query=BackfillWaitQuery,
            responses={200: BackfillView},
            allow_head=False,
        )
        for name, handler, body in (
            ("pause", self.pause, BackfillChange),
            ("resume", self.resume, None),
            ("cancel", self.cancel, BackfillCancellation),
        ):
            yield routing.post(
                f"{_ONE}/{name}",
                handler,
                access=Access.OPERATOR,
                query=NoQuery,
                body=body,
                body_required=False,
                responses={200: BackfillView},
                problems=(409,),
            )

    async def backfill(self, request: web.Request) -> web.Response:
        """Start the runs of past ticks or of partitions, as there is room; return the first."""
        dag_id = request.match_info["dag_id"]
        payload = await parse_body(request, _request)
        check_order(payload.since, payload.until)
        if payload.since is None and not payload.partitions:
            raise BadRequest("set a beginning (from, --from), or name partitions", field="from")
        if payload.partitions and (payload.since or payload.until):
            raise BadRequest("set times or partitions, not both", field="partitions")
        if payload.again and payload.only_failed:
            raise BadRequest("set again or only_failed, not both", field="only_failed")
        plan: RunPlan = await self._commands.execute(
            Backfill(
                dag_id,
                to_utc(payload.since, field="from"),
                to_utc(payload.until, field="to"),
                payload.partitions,
                payload.params,
                payload.dry_run,
                payload.again,
                payload.only_failed,
                payload.newest_first,
                payload.max_active_runs,
                payload.description,
                request[PRINCIPAL].name,
            )
        )
        return json_response(
            planned_runs(dag_id, plan, dry_run=payload.dry_run, limit=payload.limit, counted=True)
        )

    async def list_all(self, request: web.Request) -> web.Response:
        """List backfills with their progress, the newest first."""
        params = parse_query(request, BackfillQuery)
        if params.dag is not None:
            check_dag(rights_of_request(), params.dag)
        page = await seen_page(
            lambda after, limit: self._read_models.backfills.page(
                limit=limit, after=after, dag_id=params.dag, states=params.state
            ),
            read_cursor(_LIST, params.after, UUID),
            params.limit,
            UUID,
        )
        return json_response(with_cursor(_LIST, page))

    async def show(self, request: web.Request) -> web.Response:
        """Show a backfill and its progress."""
        return json_response(await self._read_models.backfills.get(_backfill_id(request)))

    async def plan(self, request: web.Request) -> web.Response:
        """List the runs of a backfill's plan in its order, each as it is now."""
        params = parse_query(request, PageQuery)
        page = await self._read_models.backfills.plan(
            _backfill_id(request),
            limit=params.limit,
            after=_position(read_cursor(_PLAN, params.after, str)),
        )
        return json_response(with_cursor(_PLAN, page))

    async def wait(self, request: web.Request) -> web.Response:
        """Wait until all runs of a backfill have ended, or until the timeout; return it."""
        key, params = _backfill_id(request), parse_query(request, BackfillWaitQuery)
        backfills, give_up = self._read_models.backfills, anyio.current_time() + params.timeout
        async with self._wakeups.on(Subjects.CHANGES) as wakeup:
            while not await backfills.ended(key) and not self._wakeups.stopping:
                left = give_up - anyio.current_time()
                if left <= 0:
                    break
                await wakeup.wait(min(left, _SWEEP_SECONDS))
        return json_response(await backfills.get(key))

    async def pause(self, request: web.Request) -> web.Response:
        """Pause a backfill: it makes no more runs until it is resumed; return it."""
        payload = decode_body(await request.read() or b"{}", _change)
        return await self._set(request, BackfillState.PAUSED, payload.reason)

    async def resume(self, request: web.Request) -> web.Response:
        """Resume a paused backfill; return it."""
        return await self._set(request, BackfillState.RUNNING, None)

    async def cancel(self, request: web.Request) -> web.Response:
        """Cancel a backfill: it makes no more runs; those that it has made go on, or end too.

        One that was cancelled may be cancelled again, to end its runs as well.
        """
        payload = decode_body(await request.read() or b"{}", _cancellation)
        response = await self._set(request, BackfillState.CANCELLED, payload.reason)
        if not payload.running:
            return response
        # It makes no more from here on, so none is missed; each run is cancelled by itself.
        key = _backfill_id(request)
        reason = payload.reason or f"backfill {key} was cancelled"
        for run_id in await self._read_models.backfills.live_runs(key):
            try:
                await self._commands.execute(CancelRun(run_id, reason))
            except (InvalidInput, NotFound):
                continue  # it has ended meanwhile
        return json_response(await self._read_models.backfills.get(key))

    async def _set(
        self, request: web.Request, state: BackfillState, reason: str | None
    ) -> web.Response:
        key = _backfill_id(request)
        try:
            await self._commands.execute(ChangeBackfill(key, state, reason))
        except InvalidInput as error:
            raise BadRequest(str(error), status=409) from error
        return json_response(await self._read_models.backfills.get(key))


def check_order(since: datetime | None, until: datetime | None) -> None:
    """Check that a time ends after it begins.

    Raises:
        BadRequest: It does not.
    """
    if since is not None and until is not None and until <= since:
        raise BadRequest(f"the end {until} is not after the beginning {since}", field="to")


def _backfill_id(request: web.Request) -> UUID:
    text = request.match_info["backfill_id"]
    try:
        return UUID(text)
    except ValueError:
        raise NotFound("backfill", text) from None


def _position(text: str | None) -> PlanPosition | None:
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=PlanPosition)
    except msgspec.DecodeError as error:
        raise BadRequest("it is not a cursor of this list", field="after") from error
