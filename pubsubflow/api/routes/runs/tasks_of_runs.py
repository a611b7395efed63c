"""Routes of tasks over many runs: list those of a filter, and clear or mark them."""

from collections.abc import Iterable
from typing import Annotated, Literal
from uuid import UUID

import anyio
import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from pubsubflow.api.auth.middleware import note_object
from pubsubflow.api.http import routing
from pubsubflow.api.http.pagination import Cursor, read_cursor, with_cursor
from pubsubflow.api.http.problems import BadRequest
from pubsubflow.api.http.requests import NoQuery, parse_body, parse_query
from pubsubflow.api.http.responses import json_response
from pubsubflow.api.http.routing import Access, Route
from pubsubflow.api.routes.runs.bulk import check_runs
from pubsubflow.api.routes.runs.clearing import Name
from pubsubflow.api.routes.runs.filters import (
    TasksOfRunsQuery,
    TasksOfRunsSelection,
    task_filter_of,
)
from pubsubflow.errors import InvalidInput, NotFound
from pubsubflow.model.api.bulk import BulkOutcome, BulkTasks, BulkTasksView
from pubsubflow.model.api.resources import Page, RunView, TaskView
from pubsubflow.model.auth import Role
from pubsubflow.model.runs.filters import TaskFilter
from pubsubflow.model.runs.states import LIVE, TaskState
from pubsubflow.model.wire.commands import (
    ClearResult,
    ClearTasks,
    CommandHandler,
    MarkResult,
    MarkTasks,
)
from pubsubflow.store.read.read_models import ReadModels
from pubsubflow.store.read.runs.task_pages import TaskPosition

MOST_TASKS = 1000
_AT_ONCE = 50
_LIST = "tasks"
_NAMED_RUNS = 20
_UNDONE = (TaskState.FAILED, TaskState.UPSTREAM_FAILED, TaskState.CANCELLED)
_STATES: dict[str | None, tuple[TaskState, ...]] = {
    None: tuple(state for state in TaskState if state not in LIVE),
    "success": _UNDONE,
    "skipped": _UNDONE,
    "failed": tuple(state for state in TaskState if state in LIVE),
}


class ChosenTasks(Struct, frozen=True, forbid_unknown_fields=True):
    """Tasks of a run as they were chosen.

    Attributes:
        run_id: The run.
        cleared: How often tasks of it had been cleared: if that has changed, they are left; null
            for as often as now.
        chosen: Task ids, with `.<map index>` for one instance of a mapped task.
    """

    run_id: UUID
    cleared: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None
    chosen: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=MOST_TASKS)]


class BulkTasksRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of an action on tasks of many runs: on those of a filter, or of a dry run.

    Attributes:
        action: What is done to them.
        filter: Which tasks; it must filter by something. States that are left out are those that
            the action fits: final ones to clear, failed and cancelled ones to mark as successful or
            skipped, live ones to mark as failed.
        runs: In place of a filter exactly these tasks, as a dry run returned them.
        dry_run: Only return the tasks, and how many the action is about.
        limit: With a filter: how many tasks at most.
        after: With a filter: the `next` of the request before.
        state: To mark: what they are marked as.
        emit: To mark: whether tasks marked as successful emit an event for each of their outlets.
        reason: To mark: why, in one line for people.
        downstream, upstream: Also all tasks downstream, or upstream, of them.
        newest: To clear: use the DAG's newest version instead of the one that a run had.
    """

    action: Literal["clear", "mark"]
    filter: TasksOfRunsSelection | None = None
    runs: Annotated[tuple[ChosenTasks, ...], Meta(min_length=1, max_length=MOST_TASKS)] | None = (
        None
    )
    dry_run: bool = False
    limit: Annotated[int, Meta(ge=1, le=MOST_TASKS)] = 200
    after: Cursor | None = None
    state: Literal["success", "failed", "skipped"] | None = None
    emit: bool = False
    reason: Annotated[str, Meta(min_length=1, max_length=512)] = "through the API"
    downstream: bool = False
    upstream: bool = False
    newest: bool = False


class _Choice(Struct, frozen=True):
    """The chosen tasks of one run."""

    run: RunView
    tasks: tuple[str, ...]


_decoder = msgspec.json.Decoder(BulkTasksRequest)


class TasksOfRunsRoutes:
    """Handlers of `/api/v1/tasks` and `/api/v1/tasks/bulk`."""

    def __init__(self, commands: CommandHandler, read_models: ReadModels) -> None:
        self._commands = commands
        self._read_models = read_models

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        yield routing.get(
            "/api/v1/tasks",
            self.list_tasks,
            query=TasksOfRunsQuery,
            responses={200: Page[TaskView]},
            problems=(404,),
        )
        yield routing.post(
            "/api/v1/tasks/bulk",
            self.act,
            access=Access.OPERATOR,
            query=NoQuery,
            body=BulkTasksRequest,
            responses={200: BulkTasks},
            problems=(404,),
        )

    async def list_tasks(self, request: web.Request) -> web.Response:
        """List tasks of many runs that have become ready, those of the newest run first."""
        params = parse_query(request, TasksOfRunsQuery)
        page = await self._read_models.tasks.search(
            task_filter_of(params), limit=params.limit, after=_position(params.after)
        )
        return json_response(with_cursor(_LIST, page))

    async def act(self, request: web.Request) -> web.Response:
        """Clear or mark tasks of many runs; return what became of them, run by run.

        Each run is changed by itself and only once: a request that is sent again leaves the runs
        that it has changed.
        """
        payload = await parse_body(request, _decoder)
        choices, following = await self._chosen(payload)
        note_object(request, _names(payload, choices))
        outcomes: list[BulkTasksView | None] = [None] * len(choices)
        limiter = anyio.CapacityLimiter(_AT_ONCE)
        async with anyio.create_task_group() as group:
            for index, choice in enumerate(choices):
                group.start_soon(self._act_on, payload, choice, outcomes, index, limiter)
        runs = [each for each in outcomes if each is not None]
        counts: dict[str, int] = {}
        for each in runs:
            counts[each.outcome] = counts.get(each.outcome, 0) + len(each.chosen)
        return json_response(
            BulkTasks(
                action=payload.action,
                dry_run=payload.dry_run,
                counts=counts,
                runs=runs,
                next=following,
            )
        )

    async def _chosen(self, payload: BulkTasksRequest) -> tuple[list[_Choice], str | None]:
        """Return the tasks that a request is about by run, and where further ones begin."""
        if (payload.filter is None) == (payload.runs is None):
            raise BadRequest("give either filter or runs", field="filter")
        if (payload.action == "mark") != (payload.state is not None):
            raise BadRequest("give a state to mark tasks as, and for nothing else", field="state")
        if payload.filter is None:
            return await self._named(payload.runs or ()), None
        chosen = task_filter_of(payload.filter, Role.OPERATOR)
        if chosen.empty:
            raise BadRequest(
                "the filter takes every task: filter by something, such as a DAG or a state",
                field="filter",
            )
        if not chosen.states:
            chosen = TaskFilter(chosen.runs, chosen.task_ids, _STATES[payload.state])
        page = with_cursor(
            _LIST,
            await self._read_models.tasks.search(
                chosen, limit=payload.limit, after=_position(payload.after)
            ),
        )
        by_run: dict[str, list[str]] = {}
        for task in page.items:
            index = "" if task.map_index is None else f".{task.map_index}"
            by_run.setdefault(task.run_id, []).append(task.task_id + index)
        found = await self._read_models.runs.briefs([UUID(run_id) for run_id in by_run])
        return [_Choice(run, tuple(by_run[run.run_id])) for run in found], page.next

    async def _named(self, runs: Iterable[ChosenTasks]) -> list[_Choice]:
        wanted = {str(each.run_id): each for each in runs}
        found = await self._read_models.runs.briefs([UUID(run_id) for run_id in wanted])
        check_runs(wanted, found)
        return [
            _Choice(
                _as_chosen(run, wanted[run.run_id].cleared),
                wanted[run.run_id].chosen,
            )
            for run in found
        ]

    async def _act_on(
        self,
        payload: BulkTasksRequest,
        choice: _Choice,
        outcomes: list[BulkTasksView | None],
        index: int,
        limiter: anyio.CapacityLimiter,
    ) -> None:
        run = choice.run
        async with limiter:
            outcome, detail, tasks = BulkOutcome.DONE, None, None
            if payload.dry_run:
                outcome = BulkOutcome.PLANNED
            try:
                tasks = await self._execute(payload, choice)
            except (InvalidInput, NotFound) as error:
                outcome, detail = BulkOutcome.LEFT, str(error)
        outcomes[index] = BulkTasksView(
            run_id=run.run_id,
            dag_id=run.dag_id,
            state=run.state,
            cleared=run.cleared,
            chosen=choice.tasks,
            outcome=outcome,
            detail=detail,
            tasks=tasks,
        )

    async def _execute(self, payload: BulkTasksRequest, choice: _Choice) -> int:
        """Clear or mark the chosen tasks of a run; return how many tasks it is about.

        Raises:
            InvalidInput: The action does not fit them, or the run has changed.
            NotFound: The run is not there any more.
        """
        key, run = UUID(choice.run.run_id), choice.run
        if payload.state is not None:
            marked: MarkResult = await self._commands.execute(
                MarkTasks(
                    key,
                    payload.state,
                    choice.tasks,
                    payload.downstream,
                    payload.upstream,
                    emit=payload.emit,
                    reason=payload.reason,
                    dry_run=payload.dry_run,
                    cleared=run.cleared,
                )
            )
            return len(marked.tasks)
        cleared: ClearResult = await self._commands.execute(
            ClearTasks(
                key,
                choice.tasks,
                payload.downstream,
                payload.upstream,
                newest=payload.newest,
                dry_run=payload.dry_run,
                cleared=run.cleared,
            )
        )
        return len(cleared.tasks)


def _as_chosen(run: RunView, cleared: int | None) -> RunView:
    return run if cleared is None else msgspec.structs.replace(run, cleared=cleared)


def _position(cursor: str | None) -> TaskPosition | None:
    text = read_cursor(_LIST, cursor, str)
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=TaskPosition)
    except msgspec.DecodeError as error:
        raise BadRequest("it is not a cursor of this list", field="after") from error


def _names(payload: BulkTasksRequest, choices: list[_Choice]) -> str:
    """Return what a request is about, for the audit log."""
    named = ", ".join(each.run.run_id for each in choices[:_NAMED_RUNS])
    more = len(choices) - _NAMED_RUNS
    tasks = sum(len(each.tasks) for each in choices)
    text = f"{payload.action} {tasks} tasks of {named}" + (f" and {more} more" if more > 0 else "")
    return f"{text} (dry run)" if payload.dry_run else text
