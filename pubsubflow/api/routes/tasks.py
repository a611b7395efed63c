"""Tasks of runs, and their output as lines of JSON, also while it is written."""

from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
import structlog
from aiohttp import web
from msgspec import Meta, Struct

from pubsubflow.api.http import routing, sse
from pubsubflow.api.http.etags import tagged
from pubsubflow.api.http.pagination import Cursor, opened, sealed
from pubsubflow.api.http.requests import Limit, NoQuery, query, run_id
from pubsubflow.api.http.responses import encode
from pubsubflow.api.http.routing import Media, Route
from pubsubflow.api.stream.log_stream import LineId, send_events
from pubsubflow.errors import ServiceStopped, Unavailable
from pubsubflow.model.api.resources import NOT_STARTED, LogLine, Page, TaskDetail, TaskView
from pubsubflow.model.runs.states import RunState
from pubsubflow.model.wire.messages import NOT_MAPPED
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.store.read.read_models import Reading
from pubsubflow.store.read.tasks import LogPiece, Position, Standing, TaskPlace
from pubsubflow.wakeup import Bell, Bells

log = structlog.get_logger(__name__)

_PIECES = 32
_SWEEP_SECONDS = 0.5
_LINGER_SECONDS = 0.2
_HEADERS = {
    "Content-Type": "application/x-ndjson",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}
_OUTPUT = Media(
    ("application/x-ndjson", sse.EVENT_STREAM),
    "Lines of output, each a LogLine in JSON, as they come.",
    LogLine,
)
_Place = Annotated[str, Meta(pattern=r"^[0-9]{1,9} (-1|[0-9]{1,9})$")]
Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
_lines = msgspec.json.Decoder(dict[str, Any]).decode_lines


class TasksQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of the list of a run's tasks."""

    limit: Limit = 1000
    after: Cursor | None = None


class LogsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of a task's output.

    Attributes:
        attempt: Which attempt, from 1; the latest if left out.
        map_index: Which instance of a mapped task, from 0.
        follow: Go on until the task has ended, through further attempts too.
        last_event_id: Go on after this line, as with the header `Last-Event-ID`.
    """

    attempt: Count | None = None
    map_index: Count | None = None
    follow: bool = False
    last_event_id: str | None = None


class Tasks:
    """Handlers of tasks."""

    def __init__(self, reading: Reading, bells: Bells) -> None:
        self._reading = reading
        self._bells = bells

    def routes(self) -> Iterable[Route]:
        """Return what is served."""
        yield routing.get(
            "/api/v1/runs/{run_id}/tasks",
            self.list_tasks,
            query=TasksQuery,
            answers={200: Page[TaskView]},
            tagged=True,
        )
        for one in ("/api/v1/runs/{run_id}/tasks/{task}", "/api/v1/tasks/{task}"):
            yield routing.get(one, self.show, query=NoQuery, answers={200: TaskDetail}, tagged=True)
            yield routing.get(
                f"{one}/logs", self.logs, query=LogsQuery, answers={200: _OUTPUT}, allow_head=False
            )

    async def list_tasks(self, request: web.Request) -> web.Response:
        """List the task instances of a run in topological order."""
        key, asked = run_id(request), query(request, TasksQuery)
        name = f"tasks {key}"
        place = opened(name, asked.after, _Place)
        node, index = (-1, NOT_MAPPED) if place is None else map(int, place.split())
        page = await self._reading.tasks.page(key, limit=asked.limit, after=(node, index))
        return tagged(request, sealed(name, page))

    async def show(self, request: web.Request) -> web.Response:
        """Show a task instance with its result and its attempts."""
        query(request, NoQuery)
        return tagged(request, await self._reading.tasks.get(await self._find(request)))

    async def logs(self, request: web.Request) -> web.StreamResponse:
        """Send the output of a task: of its latest attempt, unless another is asked for.

        With `follow` it goes on until the task has ended, through later attempts too. So do
        server-sent events, for who accepts those; they go on after `Last-Event-ID`.
        """
        asked = query(request, LogsQuery)
        place = await self._find(request, asked.map_index)
        events = sse.wants_events(request)
        if not asked.follow and not events:
            return await self._send(request, self._stored(place, asked.attempt))
        subjects = (
            f"{Subjects.LIVE_LOG}.{place.run.number}",
            f"psf.evt.run.{place.run.view.run_id}",
        )
        async with self._bells.on(*subjects) as bell:
            if not events:
                return await self._send(request, self._followed(place, asked.attempt, bell))
            return await self._send_events(request, place, asked.attempt, bell)

    async def _find(self, request: web.Request, map_index: int | None = None) -> TaskPlace:
        task = request.match_info["task"]
        if "run_id" in request.match_info:
            return await self._reading.tasks.find(run_id(request), task, map_index)
        return await self._reading.tasks.find_by_id(task)

    async def _send_events(
        self, request: web.Request, place: TaskPlace, attempt: int | None, bell: Bell
    ) -> web.StreamResponse:
        after = LineId.parse(sse.asked_place(request) or "")
        start = None if after is None else after.before
        pieces = self._followed(place, attempt, bell, start)
        response = web.StreamResponse(headers=sse.HEADERS)
        try:
            await response.prepare(request)
            await send_events(request, response, pieces, _lines_of, after=after)
        except ConnectionError as error:
            log.debug("api.reader_left", path=request.path, reason=str(error))
        except (Unavailable, ServiceStopped) as error:
            _break_off(request, error)
        return response

    @staticmethod
    async def _send(
        request: web.Request, pieces: AsyncIterator[Sequence[LogPiece]]
    ) -> web.StreamResponse:
        """Send output; if it breaks off, so does the connection: nobody takes it for whole."""
        response = web.StreamResponse(headers=_HEADERS)
        await response.prepare(request)
        try:
            async for some in pieces:
                for piece in some:
                    await response.write(b"\n".join((*_lines_of(piece), b"")))
            await response.write_eof()
        except ConnectionError as error:
            log.debug("api.reader_left", path=request.path, reason=str(error))
        except (Unavailable, ServiceStopped) as error:
            _break_off(request, error)
        return response

    async def _stored(
        self, place: TaskPlace, attempt: int | None
    ) -> AsyncIterator[Sequence[LogPiece]]:
        """Yield the output that there is."""
        if attempt is None:
            attempt = (await self._reading.tasks.standing(place)).attempt
        position = Position(attempt)
        while pieces := await self._reading.tasks.log(place, position, limit=_PIECES):
            mine = [piece for piece in pieces if piece.position.attempt == attempt]
            yield mine
            if len(mine) < len(pieces):
                return
            position = pieces[-1].position

    async def _followed(
        self,
        place: TaskPlace,
        attempt: int | None,
        bell: Bell,
        after: Position | None = None,
    ) -> AsyncIterator[Sequence[LogPiece]]:
        """Yield output as it comes, in order; nothing now and then while there is none.

        Where the task stands is read before its output: what was committed before its end is in
        there. Another manager may commit a last piece just after the end.

        Raises:
            ServiceStopped: The daemon stops before the task has ended.
            StoreUnavailable: Postgres is away.
        """
        standing = await self._reading.tasks.standing(place)
        reader = _Reader(attempt, standing, after)
        lingered = False
        while not self._bells.stopping:
            standing = await self._reading.tasks.standing(place)
            over = reader.over(standing) or await self._never(place, standing)
            while pieces := await self._reading.tasks.log(place, reader.position, limit=_PIECES):
                taken = reader.take(pieces, over=over)
                yield taken
                if len(taken) < len(pieces):
                    break
            if over and lingered:
                return
            yield ()
            await bell.wait(_LINGER_SECONDS if over else _SWEEP_SECONDS)
            lingered = over
        raise ServiceStopped("api")

    async def _never(self, place: TaskPlace, standing: Standing) -> bool:
        """Whether a task that has not started never will: its run has ended."""
        if standing.state != NOT_STARTED:
            return False
        run = await self._reading.runs.brief(UUID(place.run.view.run_id))
        return RunState(run.view.state).final


class _Reader:
    """Reads on in a task's output.

    Pieces of one delivery are numbered from 0 and may be committed out of order: those after a
    gap wait until the gap is filled, or until nothing more can come.

    Args:
        attempt: Read this one alone; None to read the latest and those after it.
        standing: Where the task stands at the start.
        after: Begin after this place rather than with the attempt.
    """

    def __init__(
        self, attempt: int | None, standing: Standing, after: Position | None = None
    ) -> None:
        self._asked = attempt
        self.position = after or Position(standing.attempt if attempt is None else attempt)

    def over(self, standing: Standing) -> bool:
        """Whether no more output is to come."""
        return standing.final or (self._asked is not None and standing.attempt > self._asked)

    def take(self, pieces: Sequence[LogPiece], *, over: bool) -> Sequence[LogPiece]:
        """Return the pieces that are next in order."""
        taken = []
        newest = pieces[-1].position
        for piece in pieces:
            here = piece.position
            if self._asked is not None and here.attempt != self._asked:
                break
            open_end = not over and _delivery(here) == _delivery(newest)
            if open_end and not self._follows(here):
                break
            self.position = here
            taken.append(piece)
        return taken

    def _follows(self, here: Position) -> bool:
        before = self.position
        same = _delivery(here) == _delivery(before)
        return here.sequence == (before.sequence + 1 if same else 0)


def _delivery(position: Position) -> tuple[int, int]:
    return position.attempt, position.delivery


def _break_off(request: web.Request, error: Exception) -> None:
    say = log.info if isinstance(error, ServiceStopped) else log.warning
    say("api.output_broke_off", path=request.path, reason=str(error))
    if request.transport is not None:
        request.transport.abort()


def _lines_of(piece: LogPiece) -> list[bytes]:
    """Turn a piece into lines of JSON as outsiders see them."""
    lines = []
    for record in _lines(piece.text):
        time = datetime.fromtimestamp(record.pop("t"), UTC)
        line = LogLine(
            attempt=piece.position.attempt,
            time=time,
            stream=record.pop("s"),
            message=record.pop("m"),
            fields=record,
        )
        lines.append(encode(line))
    return lines
