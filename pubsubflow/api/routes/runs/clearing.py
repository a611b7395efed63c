"""Routes that run tasks again: retry the failed ones of a run, or clear chosen ones."""

from collections.abc import Iterable
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from pubsubflow.api.http import routing
from pubsubflow.api.http.problems import BadRequest
from pubsubflow.api.http.requests import NoQuery, decode_body, run_id
from pubsubflow.api.http.responses import json_response
from pubsubflow.api.http.routing import Access, Route
from pubsubflow.errors import InvalidInput
from pubsubflow.model.api.resources import ClearedRun, ClearedTaskView
from pubsubflow.model.wire.commands import ClearResult, ClearTasks, CommandHandler

Name = Annotated[str, Meta(min_length=1, max_length=512)]


class RetryRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request to retry a run.

    Attributes:
        newest: Use the DAG's newest version instead of the one that the run had.
        dry_run: Only return which tasks would run again.
    """

    newest: bool = False
    dry_run: bool = False


class ClearRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request to clear tasks of a run.

    Attributes:
        tasks: Task ids, with `.<map index>` for one instance of a mapped task; all if empty.
        downstream: Also all tasks downstream of them.
        upstream: Also all tasks upstream of them.
        only_failed: Of all these only those that failed, were cancelled or could not start.
        newest: Use the DAG's newest version instead of the one that the run had.
        dry_run: Only return which tasks would run again.
    """

    tasks: Annotated[tuple[Name, ...], Meta(max_length=1000)] = ()
    downstream: bool = False
    upstream: bool = False
    only_failed: bool = False
    newest: bool = False
    dry_run: bool = False


_retry_decoder = msgspec.json.Decoder(RetryRequest)
_clear_decoder = msgspec.json.Decoder(ClearRequest)


class ClearingRoutes:
    """Handlers of `/api/v1/runs/{run_id}/retry` and `/clear`."""

    def __init__(self, commands: CommandHandler) -> None:
        self._commands = commands

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        for name, handler, body in (
            ("retry", self.retry, RetryRequest),
            ("clear", self.clear, ClearRequest),
        ):
            yield routing.post(
                f"/api/v1/runs/{{run_id}}/{name}",
                handler,
                access=Access.OPERATOR,
                query=NoQuery,
                body=body,
                body_required=False,
                responses={200: ClearedRun},
                problems=(409,),
            )

    async def retry(self, request: web.Request) -> web.Response:
        """Retry the tasks of an ended run that failed or could not start."""
        key, payload = run_id(request), decode_body(await request.read() or b"{}", _retry_decoder)
        command = ClearTasks(
            key, only_failed=True, ended=True, newest=payload.newest, dry_run=payload.dry_run
        )
        return await self._execute(command)

    async def clear(self, request: web.Request) -> web.Response:
        """Clear tasks of a run and run them again, with the run's own events and params."""
        key, payload = run_id(request), decode_body(await request.read() or b"{}", _clear_decoder)
        return await self._execute(ClearTasks(key, **msgspec.structs.asdict(payload)))

    async def _execute(self, command: ClearTasks) -> web.Response:
        try:
            cleared: ClearResult = await self._commands.execute(command)
        except InvalidInput as error:
            raise BadRequest(str(error), status=409) from error
        tasks = [
            ClearedTaskView(task_id=each.task_id, map_index=each.map_index, state=each.state)
            for each in cleared.tasks
        ]
        return json_response(
            ClearedRun(
                run_id=str(command.run_id),
                state=cleared.state,
                dry_run=command.dry_run,
                tasks=tasks,
            )
        )
