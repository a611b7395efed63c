"""Routes of parts of a task's output: lines by their numbers, and those that have a text."""

import re
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Annotated

import anyio
import anyio.lowlevel
import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from pubsubflow.api.http import routing
from pubsubflow.api.http.problems import BadRequest
from pubsubflow.api.http.requests import parse_query, run_id
from pubsubflow.api.http.responses import encode, json_response
from pubsubflow.api.http.routing import Route
from pubsubflow.api.stream.output import ending_of, lines_of
from pubsubflow.model.api.history.output import OutputLines, OutputMatches
from pubsubflow.model.api.resources import LogLineView
from pubsubflow.store.objects.output import LogChunk, OutputPosition
from pubsubflow.store.read.read_models import ReadModels
from pubsubflow.store.read.tasks import FoundTask

MOST_LINES = 2000
MOST_MATCHES = 10_000
_CHUNKS_AT_ONCE = 16
_REMEMBERED = 64
_WORDS = re.compile(r"[0-9A-Za-z_.:-]+")
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_ESCAPE = "\\u001b"
_Number = Annotated[int, Meta(ge=0, le=2**31 - 1)]


class LinesQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of lines of a task's output.

    Attributes:
        attempt: Number of an attempt, from 1; the latest if left out.
        map_index: Index of an instance of a mapped task, from 0.
        first: Number of the first line, from 0.
        last: In place of `first`: only the last lines, so many.
        limit: How many lines at most.
    """

    attempt: _Number | None = None
    map_index: _Number | None = None
    first: _Number | None = None
    last: Annotated[int, Meta(ge=1, le=MOST_LINES)] | None = None
    limit: Annotated[int, Meta(ge=1, le=MOST_LINES)] = 500


class FindQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of a search in a task's output.

    Attributes:
        text: What is looked for, in upper or lower case, in a line without its time and colours.
        attempt: Number of an attempt, from 1; the latest if left out.
        map_index: Index of an instance of a mapped task, from 0.
        limit: How many lines are named at most; all are counted.
    """

    text: Annotated[str, Meta(min_length=1, max_length=500)]
    attempt: _Number | None = None
    map_index: _Number | None = None
    limit: Annotated[int, Meta(ge=1, le=MOST_MATCHES)] = 1000


class _Index:
    """How many lines each chunk of an attempt's output has, as far as it is known."""

    def __init__(self, attempt: int) -> None:
        self.positions = [OutputPosition(attempt)]
        self.starts = [0]

    @property
    def total(self) -> int:
        return self.starts[-1]

    def add(self, counts: Sequence[tuple[OutputPosition, int]], *, over: bool) -> None:
        """Add what follows, up to the first gap that may still be filled."""
        newest = max((each.delivery for each, _ in counts), default=0)
        for position, lines in counts:
            last = self.positions[-1]
            following = last.sequence + 1 if position.delivery == last.delivery else 0
            if not over and position.delivery == newest and position.sequence != following:
                return
            self.positions.append(position)
            self.starts.append(self.total + lines)


class OutputRoutes:
    """Handlers of `…/logs/lines` and `…/logs/find`."""

    def __init__(self, read_models: ReadModels) -> None:
        self._read_models = read_models
        self._indices: OrderedDict[tuple[int, int, int, int], _Index] = OrderedDict()

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        for one in ("/api/v1/runs/{run_id}/tasks/{task}", "/api/v1/tasks/{task}"):
            for path, handler, query, answer in (
                ("lines", self.lines, LinesQuery, OutputLines),
                ("find", self.find, FindQuery, OutputMatches),
            ):
                yield routing.get(
                    f"{one}/logs/{path}",
                    handler,
                    query=query,
                    responses={200: answer},
                    problems=(422,),
                )

    async def lines(self, request: web.Request) -> web.Response:
        """Send lines of a task's output by their numbers, or the last ones.

        The last lines of all say why the attempt ended, as in the whole output.
        """
        params = parse_query(request, LinesQuery)
        if params.first is not None and params.last is not None:
            raise BadRequest("give either first or last", field="last")
        task, attempt, over = await self._attempt(request, params)
        index = await self._index(task, attempt, over=over)
        ending = await self._ending(task, attempt) if over else []
        total = index.total + len(ending)
        limit = params.last or params.limit
        first = max(0, total - limit) if params.last else min(params.first or 0, total)
        found = await self._read(task, index, first, first + limit)
        found += ending[max(0, first - index.total) : max(0, first + limit - index.total)]
        return json_response(
            OutputLines(attempt=attempt, total=total, first=first, whole=over, items=found)
        )

    async def find(self, request: web.Request) -> web.Response:
        """Find the lines of a task's output that have a text; its case does not matter."""
        params = parse_query(request, FindQuery)
        task, attempt, over = await self._attempt(request, params)
        wanted = params.text.casefold()
        found: list[int] = []
        count, start = 0, 0
        async for chunk in self._chunks(task, attempt, over=over):
            for line in _matches(chunk.text, wanted):
                count += 1
                if len(found) < params.limit:
                    found.append(start + line)
            start += chunk.text.count("\n")
            await anyio.lowlevel.checkpoint()  # a long output is no reason to keep others waiting
        return json_response(OutputMatches(attempt=attempt, total=start, count=count, lines=found))

    async def _attempt(
        self, request: web.Request, params: LinesQuery | FindQuery
    ) -> tuple[FoundTask, int, bool]:
        """Return the task, the number of the attempt, and whether no more output is to come."""
        tasks, name = self._read_models.tasks, request.match_info["task"]
        if "run_id" in request.match_info:
            task = await tasks.find(run_id(request), name, params.map_index)
        else:
            task = await tasks.find_by_id(name)
        await tasks.check_log(task, params.attempt)
        status = await tasks.status(task)
        attempt = status.attempt if params.attempt is None else params.attempt
        return task, attempt, status.final or status.attempt > attempt

    async def _index(self, task: FoundTask, attempt: int, *, over: bool) -> _Index:
        """Return where lines are; what was known is counted no more."""
        key = (task.run.number, task.node, task.map_index, attempt)
        index = self._indices.pop(key, None) or _Index(attempt)
        after = index.positions[-1]
        index.add(await self._read_models.tasks.output.count(task.key, after), over=over)
        self._indices[key] = index
        while len(self._indices) > _REMEMBERED:
            self._indices.popitem(last=False)
        return index

    async def _read(
        self, task: FoundTask, index: _Index, first: int, end: int
    ) -> list[LogLineView]:
        """Return the lines from one number to another."""
        end = min(end, index.total)
        if first >= end:
            return []
        # The chunk before the one that has the first line, and how many there are to the last one.
        at = bisect_right(index.starts, first) - 1
        last = bisect_right(index.starts, end - 1) - 1
        position, found = index.positions[at], list[LogLineView]()
        left = last - at + 1
        while left > 0:
            chunks = await self._read_models.tasks.log(task, position, limit=left)
            if not chunks:  # retention has removed it meanwhile
                break
            for chunk in chunks[:left]:
                found += lines_of(chunk)
            left -= len(chunks)
            position = chunks[-1].position
        return found[first - index.starts[at] :][: end - first]

    async def _chunks(
        self, task: FoundTask, attempt: int, *, over: bool
    ) -> AsyncIterator[LogChunk]:
        """Yield all output of an attempt, and its end."""
        index = await self._index(task, attempt, over=over)
        position, last = index.positions[0], index.positions[-1]
        while position < last:
            chunks = await self._read_models.tasks.log(task, position, limit=_CHUNKS_AT_ONCE)
            if not chunks:
                break
            for chunk in chunks:
                if chunk.position <= last:
                    yield chunk
            position = chunks[-1].position
        if over:
            for chunk in await ending_of(self._read_models, task, attempt or None, full=False):
                yield chunk

    async def _ending(self, task: FoundTask, attempt: int) -> list[LogLineView]:
        chunks = await ending_of(self._read_models, task, attempt or None, full=False)
        return [line for chunk in chunks for line in lines_of(chunk)]


def _matches(text: str, wanted: str) -> Iterable[int]:
    """Return which lines of a chunk have a text, from 0."""
    # Words stand in JSON as they stand on the screen, unless another colour begins in them; by them
    # nearly all lines are left out without being decoded.
    words = [] if _ESCAPE in text else _WORDS.findall(wanted)
    if not _all_in(words, text.casefold()):
        return
    for number, line in enumerate(text.split("\n")):
        if line and _all_in(words, line.casefold()) and _has(line, wanted):
            yield number


def _all_in(words: Sequence[str], text: str) -> bool:
    return all(word in text for word in words)


def _has(line: str, wanted: str) -> bool:
    """Whether a line has a text as it is shown."""
    record = msgspec.json.decode(line)
    message = _COLOURS.sub("", record.pop("m"))
    shown = [message]
    for name, value in record.items():
        if name not in ("t", "s"):
            shown.append(f"{name}={value if isinstance(value, str) else encode(value).decode()}")
    return wanted in " ".join(shown).casefold()
