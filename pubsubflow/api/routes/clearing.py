"""Runs that go on: failed tasks again, or those that somebody chooses."""

from collections.abc import Iterable
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from pubsubflow.api.http import routing
from pubsubflow.api.http.problems import BadRequest
from pubsubflow.api.http.requests import NoQuery, decode, query, run_id
from pubsubflow.api.http.responses import answer
from pubsubflow.api.http.routing import Access, Route
from pubsubflow.errors import InvalidInput
from pubsubflow.model.api.resources import ClearedRun, ClearedTaskView
from pubsubflow.model.wire.commands import Calls, Cleared, ClearTasks

Name = Annotated[str, Meta(min_length=1, max_length=512)]


class AskedRetry(Struct, frozen=True, forbid_unknown_fields=True):
    """How a run is to be retried.

    Attributes:
        newest: With the DAG's newest version in place of the one that it ran with.
        dry_run: Only tell which tasks would run again.
    """

    newest: bool = False
    dry_run: bool = False


class AskedClear(Struct, frozen=True, forbid_unknown_fields=True):
    """Which tasks of a run are to be cleared.

    Attributes:
        tasks: Task ids, with `.<map index>` for one instance of a mapped task; all if empty.
        downstream: Also all that follows them.
        upstream: Also all that they follow from.
        only_failed: Of all these only what failed, was cancelled or could not start.
        newest: With the DAG's newest version in place of the one that the run had.
        dry_run: Only tell which tasks would run again.
    """

    tasks: Annotated[tuple[Name, ...], Meta(max_length=1000)] = ()
    downstream: bool = False
    upstream: bool = False
    only_failed: bool = False
    newest: bool = False
    dry_run: bool = False


_retry = msgspec.json.Decoder(AskedRetry)
_clear = msgspec.json.Decoder(AskedClear)


class Clearings:
    """Handlers of `/api/v1/runs/{run_id}/retry` and `/clear`."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def routes(self) -> Iterable[Route]:
        """Return what is served."""
        for name, handler, body in (
            ("retry", self.retry, AskedRetry),
            ("clear", self.clear, AskedClear),
        ):
            yield routing.post(
                f"/api/v1/runs/{{run_id}}/{name}",
                handler,
                access=Access.OPERATOR,
                query=NoQuery,
                body=body,
                body_needed=False,
                answers={200: ClearedRun},
                problems=(409,),
            )

    async def retry(self, request: web.Request) -> web.Response:
        """Run the tasks of an ended run again that failed or could not start; keep the others."""
        query(request, NoQuery)
        key, asked = run_id(request), decode(await request.read() or b"{}", _retry)
        call = ClearTasks(
            key, only_failed=True, ended=True, newest=asked.newest, dry_run=asked.dry_run
        )
        return await self._answer(call)

    async def clear(self, request: web.Request) -> web.Response:
        """Clear tasks of a run and run them again, with the run's own events and params."""
        query(request, NoQuery)
        key, asked = run_id(request), decode(await request.read() or b"{}", _clear)
        return await self._answer(ClearTasks(key, **msgspec.structs.asdict(asked)))

    async def _answer(self, call: ClearTasks) -> web.Response:
        try:
            cleared: Cleared = await self._calls.call(call)
        except InvalidInput as error:
            raise BadRequest(str(error), status=409) from error
        tasks = [
            ClearedTaskView(task_id=each.task_id, map_index=each.map_index, state=each.state)
            for each in cleared.tasks
        ]
        told = ClearedRun(
            run_id=str(call.run_id), state=cleared.state, dry_run=call.dry_run, tasks=tasks
        )
        return answer(told)
