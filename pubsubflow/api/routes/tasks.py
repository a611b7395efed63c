"""Routes of task instances: list and show them, and send their output, also while it is written."""

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Annotated, Literal

import structlog
from aiohttp import web
from msgspec import Meta, Struct

from pubsubflow.api.http import routing, sse
from pubsubflow.api.http.etags import json_with_etag
from pubsubflow.api.http.pagination import Cursor, read_cursor, with_cursor
from pubsubflow.api.http.requests import Limit, NoQuery, parse_query, run_id
from pubsubflow.api.http.responses import encode
from pubsubflow.api.http.routing import MediaBody, Route
from pubsubflow.api.stream.log_stream import LineId, send_events
from pubsubflow.api.stream.output import ending_of, lines_of, never_starts
from pubsubflow.errors import ServiceStopped, Unavailable
from pubsubflow.model.api.resources import LogLineView, Page, TaskDetail, TaskView
from pubsubflow.model.wire.messages import NOT_MAPPED
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.store.objects.output import LogChunk, OutputPosition
from pubsubflow.store.read.read_models import ReadModels
from pubsubflow.store.read.tasks import FoundTask, TaskStatus
from pubsubflow.wakeup import Wakeup, Wakeups

log = structlog.get_logger(__name__)

_MAX_CHUNKS = 32
_SWEEP_SECONDS = 0.5
_LINGER_SECONDS = 0.2
_HEADERS = {
    "Content-Type": "application/x-ndjson",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}
_OUTPUT = MediaBody(
    ("application/x-ndjson", sse.EVENT_STREAM),
    "Lines of output, each a LogLineView in JSON, as they are written.",
    LogLineView,
)
_RESULT = MediaBody(("application/json",), "What the task returned.", None)
_Position = Annotated[str, Meta(pattern=r"^[0-9]{1,9} (-1|[0-9]{1,9})$")]
_ShownState = Literal[
    "none",
    "ready",
    "queued",
    "running",
    "deferred",
    "up_for_retry",
    "success",
    "failed",
    "skipped",
    "upstream_failed",
    "cancelled",
]
Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]


class TasksQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of the list of a run's tasks.

    Attributes:
        state: Only tasks in one of these states, `none` for those not started; may be repeated.
        task: Only the instances of this task.
        map_index: Only the instances with this index of mapped tasks and groups.
    """

    state: Annotated[list[_ShownState], Meta(max_length=50)] = []
    task: Annotated[str, Meta(min_length=1, max_length=512)] | None = None
    map_index: Count | None = None
    limit: Limit = 1000
    after: Cursor | None = None


class LogsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of a task's output.

    Attributes:
        attempt: Number of an attempt, from 1; the latest if left out.
        map_index: Index of an instance of a mapped task, from 0.
        follow: Continue until the task has ended, through further attempts too.
        full: Show the traceback at the end with the frames of pubsubflow.
        last_event_id: Resume after this line, as with the header `Last-Event-ID`.
    """

    attempt: Count | None = None
    map_index: Count | None = None
    follow: bool = False
    full: bool = False
    last_event_id: str | None = None


class TaskRoutes:
    """Handlers of `/api/v1/runs/{run_id}/tasks` and `/api/v1/tasks`."""

    def __init__(self, read_models: ReadModels, wakeups: Wakeups) -> None:
        self._read_models = read_models
        self._wakeups = wakeups

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        yield routing.get(
            "/api/v1/runs/{run_id}/tasks",
            self.list_tasks,
            query=TasksQuery,
            responses={200: Page[TaskView]},
            etag=True,
        )
        for one in ("/api/v1/runs/{run_id}/tasks/{task}", "/api/v1/tasks/{task}"):
            yield routing.get(one, self.show, query=NoQuery, responses={200: TaskDetail}, etag=True)
            yield routing.get(f"{one}/result", self.result, query=NoQuery, responses={200: _RESULT})
            yield routing.get(
                f"{one}/logs",
                self.logs,
                query=LogsQuery,
                responses={200: _OUTPUT},
                allow_head=False,
            )

    async def list_tasks(self, request: web.Request) -> web.Response:
        """List the task instances of a run in topological order."""
        key, params = run_id(request), parse_query(request, TasksQuery)
        name = f"tasks {key}"
        position = read_cursor(name, params.after, _Position)
        node, index = (-1, NOT_MAPPED) if position is None else map(int, position.split())
        page = await self._read_models.tasks.page(
            key, limit=params.limit, after=(node, index), states=params.state, task=params.task
        )
        if params.map_index is not None:
            items = [task for task in page.items if task.map_index == params.map_index]
            page = Page(items, page.next)
        return json_with_etag(request, with_cursor(name, page))

    async def show(self, request: web.Request) -> web.Response:
        """Show a task instance with its result and its attempts."""
        return json_with_etag(request, await self._read_models.tasks.get(await self._find(request)))

    async def result(self, request: web.Request) -> web.Response:
        """Send what a task instance returned, as JSON, whatever its size."""
        data = await self._read_models.tasks.result(await self._find(request))
        headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
        return web.Response(body=data, content_type="application/json", headers=headers)

    async def logs(self, request: web.Request) -> web.StreamResponse:
        """Send the output of a task instance: of its latest attempt, or of the given one.

        It ends with the reason why the attempt failed, was stopped or never began, in lines of the
        stream `error`: a traceback where there is one.

        With `follow` it continues until the task has ended, through later attempts too. So do
        server-sent events, for clients that accept them; they resume after `Last-Event-ID`.
        """
        params = parse_query(request, LogsQuery)
        task = await self._find(request, params.map_index)
        await self._read_models.tasks.check_log(task, params.attempt)
        events = sse.accepts_event_stream(request)
        if not params.follow and not events:
            return await self._send(request, self._stored(task, params))
        subjects = (
            f"{Subjects.LIVE_LOG}.{task.run.number}",
            f"psf.evt.run.{task.run.view.run_id}",
        )
        async with self._wakeups.on(*subjects) as wakeup:
            if not events:
                return await self._send(request, self._followed(task, params, wakeup))
            return await self._send_events(request, task, params, wakeup)

    async def _find(self, request: web.Request, map_index: int | None = None) -> FoundTask:
        task_id = request.match_info["task"]
        if "run_id" in request.match_info:
            return await self._read_models.tasks.find(run_id(request), task_id, map_index)
        return await self._read_models.tasks.find_by_id(task_id)

    async def _send_events(
        self, request: web.Request, task: FoundTask, params: LogsQuery, wakeup: Wakeup
    ) -> web.StreamResponse:
        after = LineId.parse(sse.last_event_id(request) or "")
        start = None if after is None else after.before
        batches = self._followed(task, params, wakeup, start)
        response = web.StreamResponse(headers=sse.HEADERS)
        try:
            await response.prepare(request)
            await send_events(request, response, batches, _lines_of, after=after)
        except ConnectionError as error:
            log.debug("task_log.client_disconnected", path=request.path, reason=str(error))
        except (Unavailable, ServiceStopped) as error:
            _abort(request, error)
        return response

    @staticmethod
    async def _send(
        request: web.Request, batches: AsyncIterator[Sequence[LogChunk]]
    ) -> web.StreamResponse:
        """Send output as lines of JSON."""
        # Read before the response begins: a store that is away is a status of it.
        first = await anext(batches, ())
        response = web.StreamResponse(headers=_HEADERS)
        await response.prepare(request)
        try:
            for chunk in first:
                await response.write(b"\n".join((*_lines_of(chunk), b"")))
            async for batch in batches:
                for chunk in batch:
                    await response.write(b"\n".join((*_lines_of(chunk), b"")))
            await response.write_eof()
        except ConnectionError as error:
            log.debug("task_log.client_disconnected", path=request.path, reason=str(error))
        except (Unavailable, ServiceStopped) as error:
            _abort(request, error)
        return response

    async def _stored(
        self, task: FoundTask, params: LogsQuery
    ) -> AsyncIterator[Sequence[LogChunk]]:
        """Yield the stored output of one attempt, and its end."""
        attempt = params.attempt
        if attempt is None:
            attempt = (await self._read_models.tasks.status(task)).attempt
        position = OutputPosition(attempt)
        while chunks := await self._read_models.tasks.log(task, position, limit=_MAX_CHUNKS):
            own = [chunk for chunk in chunks if chunk.position.attempt == attempt]
            yield own
            if len(own) < len(chunks):
                break
            position = chunks[-1].position
        yield await ending_of(self._read_models, task, attempt or None, full=params.full)

    async def _followed(
        self,
        task: FoundTask,
        params: LogsQuery,
        wakeup: Wakeup,
        after: OutputPosition | None = None,
    ) -> AsyncIterator[Sequence[LogChunk]]:
        """Yield output as it comes, in order; an empty batch now and then while there is none.

        Raises:
            ServiceStopped: The daemon stops before the task has ended.
            StoreUnavailable: Postgres is out of reach.
        """
        status = await self._read_models.tasks.status(task)
        reader = _ChunkReader(params.attempt, status, after)
        lingered = False
        while not self._wakeups.stopping:
            # The status is read before the output: output committed before the end is then in it.
            status = await self._read_models.tasks.status(task)
            over = reader.is_over(status) or await never_starts(self._read_models, task, status)
            while chunks := await self._read_models.tasks.log(
                task, reader.position, limit=_MAX_CHUNKS
            ):
                taken = reader.take(chunks, over=over)
                yield taken
                if len(taken) < len(chunks):
                    break
            # One round more: another manager may commit a last chunk just after the end.
            if over and lingered:
                yield await ending_of(self._read_models, task, params.attempt, full=params.full)
                return
            yield ()
            await wakeup.wait(_LINGER_SECONDS if over else _SWEEP_SECONDS)
            lingered = over
        raise ServiceStopped("api")


class _ChunkReader:
    """Puts the chunks of a task's output in order.

    The chunks of one delivery are numbered from 0 and may be committed out of order: those after a
    gap wait until the gap is filled, or until nothing more can come.

    Args:
        attempt: The only attempt to read; None to read the latest and those after it.
        status: The task's status at the beginning.
        after: Begin after this position rather than with the attempt.
    """

    def __init__(
        self, attempt: int | None, status: TaskStatus, after: OutputPosition | None = None
    ) -> None:
        self._attempt = attempt
        self.position = after or OutputPosition(status.attempt if attempt is None else attempt)

    def is_over(self, status: TaskStatus) -> bool:
        """Whether no more output is to come."""
        return status.final or (self._attempt is not None and status.attempt > self._attempt)

    def take(self, chunks: Sequence[LogChunk], *, over: bool) -> Sequence[LogChunk]:
        """Return the chunks that are next in order."""
        taken = []
        newest = chunks[-1].position
        for chunk in chunks:
            position = chunk.position
            if self._attempt is not None and position.attempt != self._attempt:
                break
            # Only the newest delivery can still fill a gap: the ones before it have ended.
            incomplete = not over and _delivery(position) == _delivery(newest)
            if incomplete and not self._follows(position):
                break
            self.position = position
            taken.append(chunk)
        return taken

    def _follows(self, position: OutputPosition) -> bool:
        before = self.position
        same = _delivery(position) == _delivery(before)
        return position.sequence == (before.sequence + 1 if same else 0)


def _delivery(position: OutputPosition) -> tuple[int, int]:
    return position.attempt, position.delivery


def _abort(request: web.Request, error: Exception) -> None:
    """Abort the connection, so that the client does not take incomplete output for all of it."""
    write = log.info if isinstance(error, ServiceStopped) else log.warning
    write("task_log.aborted", path=request.path, reason=str(error))
    if request.transport is not None:
        request.transport.abort()


def _lines_of(chunk: LogChunk) -> list[bytes]:
    """Encode the lines of a chunk as JSON in the form of the API."""
    return [encode(line) for line in lines_of(chunk)]
