"""Routes that mark a run, or tasks of it, as successful, failed or skipped."""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from pubsubflow.api.http import routing
from pubsubflow.api.http.problems import BadRequest
from pubsubflow.api.http.requests import NoQuery, parse_body, run_id
from pubsubflow.api.http.responses import json_response
from pubsubflow.api.http.routing import Access, Route
from pubsubflow.api.routes.runs.clearing import Name
from pubsubflow.errors import InvalidInput
from pubsubflow.model.api.bulk import MarkedRun
from pubsubflow.model.api.resources import ClearedTaskView
from pubsubflow.model.wire.commands import ClearedTask, CommandHandler, MarkResult, MarkTasks
from pubsubflow.model.wire.messages import encode

MAX_RESULT_BYTES = 64 * 1024


class Mark(StrEnum):
    """A state that people give."""

    SUCCESS = "success"
    FAILED = "failed"
    SKIPPED = "skipped"


class MarkRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request to mark a run or tasks of it.

    Attributes:
        state: The state to give; a run is `success` or `failed`.
        tasks: Task ids, with `.<map index>` for one instance of a mapped task; the run is marked
            if empty.
        downstream: Also all tasks downstream of them.
        upstream: Also all tasks upstream of them.
        emit: Whether what is marked as successful emits an event for each of its outlets.
        result: What the tasks return, for tasks that take it; null for none.
        reason: Why: one line for people, the error of what is marked as failed.
        dry_run: Only return which tasks would be marked.
    """

    state: Mark
    tasks: Annotated[tuple[Name, ...], Meta(max_length=1000)] = ()
    downstream: bool = False
    upstream: bool = False
    emit: bool = False
    result: Any = None
    reason: Annotated[str, Meta(min_length=1, max_length=512)] = "marked through the API"
    dry_run: bool = False


_decoder = msgspec.json.Decoder(MarkRequest)


class MarkingRoutes:
    """Handlers of `/api/v1/runs/{run_id}/mark`."""

    def __init__(self, commands: CommandHandler) -> None:
        self._commands = commands

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        yield routing.post(
            "/api/v1/runs/{run_id}/mark",
            self.mark,
            access=Access.OPERATOR,
            query=NoQuery,
            body=MarkRequest,
            responses={200: MarkedRun},
            problems=(409,),
        )

    async def mark(self, request: web.Request) -> web.Response:
        """Mark a run, or tasks of it, as successful, failed or skipped.

        A marked task that runs is stopped, and its result has no effect. Tasks downstream that
        ended without having run are decided anew; what ran stays as it is.
        """
        key, payload = run_id(request), await parse_body(request, _decoder)
        command = MarkTasks(
            key,
            payload.state,
            payload.tasks,
            payload.downstream,
            payload.upstream,
            _encoded_result(payload),
            payload.emit,
            payload.reason,
            payload.dry_run,
        )
        try:
            found: MarkResult = await self._commands.execute(command)
        except InvalidInput as error:
            raise BadRequest(str(error), status=409) from error
        return json_response(
            MarkedRun(
                run_id=str(key),
                state=found.state,
                dry_run=payload.dry_run,
                tasks=_views(found.tasks),
                anew=_views(found.anew),
            )
        )


def _encoded_result(payload: MarkRequest) -> bytes:
    """Return the result for the marked tasks, encoded; empty for none.

    Raises:
        BadRequest: It does not go with the state, or is too large.
    """
    if payload.state is Mark.SKIPPED and not payload.tasks:
        raise BadRequest("name tasks: a run is marked as success or failed", field="tasks")
    if payload.result is None:
        return b""
    if payload.state is not Mark.SUCCESS or not payload.tasks:
        raise BadRequest("a result goes with tasks that are marked as success", field="result")
    encoded = encode(payload.result)
    if len(encoded) > MAX_RESULT_BYTES:
        raise BadRequest(
            f"a result of {len(encoded)} bytes is larger than {MAX_RESULT_BYTES}", field="result"
        )
    return encoded


def _views(tasks: Sequence[ClearedTask]) -> list[ClearedTaskView]:
    return [
        ClearedTaskView(task_id=each.task_id, map_index=each.map_index, state=each.state)
        for each in tasks
    ]
