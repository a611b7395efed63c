"""Routes of actions on many runs: cancel, retry, clear or mark those that a filter takes."""

from collections.abc import Iterable
from typing import Annotated, Literal
from uuid import UUID

import anyio
import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from pubsubflow.api.auth.middleware import note_object
from pubsubflow.api.auth.scopes import check_dag
from pubsubflow.api.http import routing
from pubsubflow.api.http.pagination import Cursor, read_cursor, with_cursor
from pubsubflow.api.http.problems import BadRequest
from pubsubflow.api.http.requests import NoQuery, parse_body
from pubsubflow.api.http.responses import json_response
from pubsubflow.api.http.routing import Access, Route
from pubsubflow.api.http.shown import rights_of_request
from pubsubflow.api.routes.runs.clearing import Name
from pubsubflow.api.routes.runs.filters import RunSelection, filter_of
from pubsubflow.errors import InvalidInput, NotFound
from pubsubflow.model.api.bulk import BulkAction, BulkOutcome, BulkRunView, BulkView
from pubsubflow.model.api.resources import Page, RunView
from pubsubflow.model.auth import Role
from pubsubflow.model.runs.filters import LIVE_RUNS
from pubsubflow.model.runs.states import RunState
from pubsubflow.model.wire.commands import (
    CancelRun,
    ClearResult,
    ClearTasks,
    CommandHandler,
    MarkResult,
    MarkTasks,
)
from pubsubflow.store.read.read_models import ReadModels

MOST_RUNS = 1000
_AT_ONCE = 50
_LIST = "bulk"
_NAMED_RUNS = 20
_ENDED = (RunState.SUCCESS, RunState.FAILED, RunState.CANCELLED)
_STATES: dict[BulkAction, tuple[RunState, ...]] = {
    BulkAction.CANCEL: (RunState.QUEUED, RunState.RUNNING),
    BulkAction.RETRY: (RunState.FAILED,),
    BulkAction.CLEAR: _ENDED,
}
_UNLIKE: dict[str | None, tuple[RunState, ...]] = {
    "success": (RunState.FAILED, RunState.CANCELLED),
    "failed": (RunState.RUNNING, RunState.SUCCESS, RunState.CANCELLED),
}


class BulkRun(Struct, frozen=True, forbid_unknown_fields=True):
    """A run as it was when it was chosen.

    Attributes:
        run_id: Its id.
        cleared: How often tasks of it had been cleared: if that has changed, it is left.
    """

    run_id: UUID
    cleared: Annotated[int, Meta(ge=0, le=2**31 - 1)]


class BulkRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of an action on many runs: on those of a filter, or on those of a dry run.

    Attributes:
        action: What is done to each of them.
        filter: Which runs; it must filter by something. States that are left out are those that
            the action fits: live ones to cancel, failed ones to retry, ended ones to clear, to mark
            those that are not what they are marked as.
        runs: In place of a filter exactly these, as a dry run returned them.
        dry_run: Only return the runs, and how many tasks it is about.
        limit: With a filter: how many runs at most.
        after: With a filter: the `next` of the request before.
        state: To mark: what the runs are marked as.
        emit: To mark: whether tasks marked as successful emit an event for each of their outlets.
        reason: Why they are cancelled or marked: one line for people.
        tasks, downstream, upstream: To clear: which tasks, as for one run; all if left out.
        only_failed: To clear: only tasks that failed, were cancelled or could not start.
        newest: To retry or clear: use the DAG's newest version instead of the one that a run had.
    """

    action: BulkAction
    filter: RunSelection | None = None
    runs: Annotated[tuple[BulkRun, ...], Meta(min_length=1, max_length=MOST_RUNS)] | None = None
    dry_run: bool = False
    limit: Annotated[int, Meta(ge=1, le=MOST_RUNS)] = 200
    after: Cursor | None = None
    state: Literal["success", "failed"] | None = None
    emit: bool = False
    reason: Annotated[str, Meta(min_length=1, max_length=512)] = "through the API"
    tasks: Annotated[tuple[Name, ...], Meta(max_length=1000)] = ()
    downstream: bool = False
    upstream: bool = False
    only_failed: bool = False
    newest: bool = False


_decoder = msgspec.json.Decoder(BulkRequest)


class BulkRoutes:
    """Handlers of `/api/v1/runs/bulk`."""

    def __init__(self, commands: CommandHandler, read_models: ReadModels) -> None:
        self._commands = commands
        self._read_models = read_models

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        yield routing.post(
            "/api/v1/runs/bulk",
            self.act,
            access=Access.OPERATOR,
            query=NoQuery,
            body=BulkRequest,
            responses={200: BulkView},
            problems=(404,),
        )

    async def act(self, request: web.Request) -> web.Response:
        """Cancel, retry, clear or mark many runs; return what became of each.

        Each run is changed by itself and only once: a request that is sent again leaves the runs
        that it has changed, as they have ended or were cleared since.
        """
        payload = await parse_body(request, _decoder)
        chosen = await self._chosen(payload)
        note_object(request, _names(payload, chosen.items))
        outcomes: list[BulkRunView | None] = [None] * len(chosen.items)
        limiter = anyio.CapacityLimiter(_AT_ONCE)
        async with anyio.create_task_group() as group:
            for index, run in enumerate(chosen.items):
                group.start_soon(self._act_on, payload, run, outcomes, index, limiter)
        runs = [each for each in outcomes if each is not None]
        counts: dict[str, int] = {}
        for each in runs:
            counts[each.outcome] = counts.get(each.outcome, 0) + 1
        return json_response(
            BulkView(
                action=payload.action,
                dry_run=payload.dry_run,
                counts=counts,
                runs=runs,
                next=chosen.next,
            )
        )

    async def _chosen(self, payload: BulkRequest) -> Page[RunView]:
        """Return the runs that a request is about, as they were when they were chosen."""
        if (payload.filter is None) == (payload.runs is None):
            raise BadRequest("give either filter or runs", field="filter")
        if (payload.action is BulkAction.MARK) != (payload.state is not None):
            raise BadRequest("give a state to mark runs as, and for nothing else", field="state")
        if payload.filter is None:
            return await self._named(payload.runs or ())
        chosen = filter_of(payload.filter, Role.OPERATOR)
        if chosen.empty:
            raise BadRequest(
                "the filter takes every run: filter by something, such as a DAG or a state",
                field="filter",
            )
        if not chosen.states:
            states = _STATES.get(payload.action) or _UNLIKE[payload.state]
            chosen = msgspec.structs.replace(chosen, states=states)
        after = read_cursor(_LIST, payload.after, UUID)
        page = await self._read_models.runs.page(chosen, limit=payload.limit, after=after)
        return with_cursor(_LIST, page)

    async def _named(self, runs: Iterable[BulkRun]) -> Page[RunView]:
        wanted = {str(each.run_id): each.cleared for each in runs}
        found = await self._read_models.runs.briefs([UUID(run_id) for run_id in wanted])
        check_runs(wanted, found)
        return Page(
            [msgspec.structs.replace(run, cleared=wanted[run.run_id]) for run in found], None
        )

    async def _act_on(
        self,
        payload: BulkRequest,
        run: RunView,
        outcomes: list[BulkRunView | None],
        index: int,
        limiter: anyio.CapacityLimiter,
    ) -> None:
        async with limiter:
            outcome, detail, tasks = BulkOutcome.DONE, None, None
            if payload.dry_run:
                outcome = BulkOutcome.PLANNED
            try:
                tasks = await self._execute(payload, run)
            except (InvalidInput, NotFound) as error:
                outcome, detail = BulkOutcome.LEFT, str(error)
        outcomes[index] = BulkRunView(
            run_id=run.run_id,
            dag_id=run.dag_id,
            state=run.state,
            cleared=run.cleared,
            outcome=outcome,
            detail=detail,
            tasks=tasks,
        )

    async def _execute(self, payload: BulkRequest, run: RunView) -> int | None:
        """Carry out the action on one run; return how many of its tasks run again.

        Raises:
            InvalidInput: The action does not fit the run, or it has changed since it was chosen.
            NotFound: It is not there any more.
        """
        key = UUID(run.run_id)
        if payload.action is BulkAction.CANCEL:
            if not payload.dry_run:
                await self._commands.execute(CancelRun(key, payload.reason, run.cleared))
            elif RunState(run.state) not in LIVE_RUNS:
                raise InvalidInput(f"run {run.run_id} has ended: {run.state}")
            return None
        if payload.state is not None:
            marked: MarkResult = await self._commands.execute(
                MarkTasks(
                    key,
                    payload.state,
                    emit=payload.emit,
                    reason=payload.reason,
                    dry_run=payload.dry_run,
                    cleared=run.cleared,
                )
            )
            return len(marked.tasks)
        retried = payload.action is BulkAction.RETRY
        cleared: ClearResult = await self._commands.execute(
            ClearTasks(
                key,
                payload.tasks,
                payload.downstream,
                payload.upstream,
                only_failed=retried or payload.only_failed,
                newest=payload.newest,
                ended=retried,
                dry_run=payload.dry_run,
                cleared=run.cleared,
            )
        )
        return len(cleared.tasks)


def check_runs(wanted: Iterable[str], found: Iterable[RunView]) -> None:
    """Check that runs were found, and that the principal of the request may change them.

    Raises:
        NotFound: One was not, or may not be seen.
        BadRequest: The role on the DAG of one does not suffice (403).
    """
    rights = rights_of_request()
    seen = [run for run in found if rights is None or rights.sees_dag(run.dag_id)]
    missing = set(wanted) - {run.run_id for run in seen}
    if missing:
        raise NotFound("run", min(missing))
    for run in seen:
        check_dag(rights, run.dag_id, Role.OPERATOR)


def _names(payload: BulkRequest, runs: list[RunView]) -> str:
    """Return what a request is about, for the audit log."""
    named = ", ".join(run.run_id for run in runs[:_NAMED_RUNS])
    more = len(runs) - _NAMED_RUNS
    text = f"{payload.action} {len(runs)} runs: {named}" + (f" and {more} more" if more > 0 else "")
    return f"{text} (dry run)" if payload.dry_run else text
