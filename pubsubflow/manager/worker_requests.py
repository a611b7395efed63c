"""Worker requests: managers answer for code, large results, many events, connections' secrets.

Workers hold no connection to Postgres, and no key.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
import structlog
from anyio.abc import TaskStatus
from msgspec import Raw

from pubsubflow.bus import Message
from pubsubflow.errors import (
    ConfigError,
    InvalidInput,
    LeaseLost,
    NotFound,
    SecretsUnavailable,
    ServiceStopped,
    Unavailable,
)
from pubsubflow.manager.liveness import Uptime
from pubsubflow.model.connection_dags import check_dag
from pubsubflow.model.connections import Connection
from pubsubflow.model.wire.commands import ClearTasks, StartRun
from pubsubflow.model.wire.elements import elements_of
from pubsubflow.model.wire.messages import encode
from pubsubflow.model.wire.stored_results import is_stored
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.model.wire.worker_requests import (
    ABSENT,
    LATER,
    LATER_HEADER,
    LEASE_LOST,
    REFUSED,
    BundleRequest,
    Chunk,
    ConnectionRequest,
    EventsRequest,
    FileRequest,
    JournalEntryRequest,
    JournalRequest,
    LeaseRequest,
    LeaseStatus,
    LiveRunsRequest,
    PreviousSuccessRequest,
    PullRequest,
    ResultRequest,
    SourceRequest,
    StartRunRequest,
    StateRequest,
    TaskQuestionRequest,
    VariableRequest,
    decode_worker_request,
)
from pubsubflow.services import run_until
from pubsubflow.store.database import Database
from pubsubflow.store.questions.tasks import TaskQuestions
from pubsubflow.store.read.worker_requests import WorkerRequestQueries
from pubsubflow.store.secrets.connections import Connections
from pubsubflow.store.secrets.variables import Variables

log = structlog.get_logger()

CHUNK_BYTES = 512 * 1024
EVENTS_A_CHUNK = 500
SILENT_SECONDS = 7.0
BEAT_SECONDS = 4.0
_NIL = b"\xc0"
_EMPTY = Chunk(b"", 0)


class WorkerRequestServer:
    """A few tasks that answer requests side by side.

    Args:
        database: Postgres.
        uptime: How long workers could be heard.
        connections: The connections of tasks; they get none if left out.
        variables: Their variables, likewise.
        execute: Carries out a command; tasks start and clear no runs if left out.
        announce: Called with the name of a variable that a task has changed.
        tasks: How many.
    """

    def __init__(
        self,
        database: Database,
        uptime: Uptime,
        *,
        connections: Connections | None = None,
        variables: Variables | None = None,
        execute: Callable[[StartRun | ClearTasks], Awaitable[Any]] | None = None,
        announce: Callable[[str], None] | None = None,
        tasks: int = 3,
    ) -> None:
        self._queries = WorkerRequestQueries(database)
        self._connections = connections
        self._variables = variables
        self._execute = execute
        self._questions = TaskQuestions(database, variables, announce, execute)
        self._uptime = uptime
        self._tasks = tasks
        self._send, self._receive = anyio.create_memory_object_stream[Message](100_000)
        self._answers: dict[type, Callable[[Any], Awaitable[Chunk]]] = {
            SourceRequest: self._source,
            BundleRequest: self._bundle,
            FileRequest: self._file,
            EventsRequest: self._events,
            LeaseRequest: self._lease,
            JournalRequest: self._journal,
            JournalEntryRequest: self._journal_entry,
            ConnectionRequest: self._connection,
            VariableRequest: self._variable,
            StartRunRequest: self._start_run,
            ResultRequest: self._result,
            PullRequest: self._pulled,
            StateRequest: self._state,
            PreviousSuccessRequest: self._previous_success,
            LiveRunsRequest: self._live_runs,
            TaskQuestionRequest: self._question,
        }

    def receive(self, message: Message) -> None:
        """Take a request; one that comes too late goes to another manager when it is repeated."""
        with suppress(anyio.ClosedResourceError):
            self._send.send_nowait(message)

    async def run(
        self,
        stopping: anyio.Event,
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Answer until `stopping` is set."""
        async with self._send, self._receive:
            await run_until(stopping, *[self._answer_all] * self._tasks, task_status=task_status)

    async def _answer_all(self) -> None:
        async for message in self._receive:
            try:
                request = decode_worker_request(message.data)
                chunk = await self._answers[type(request)](request)
            except Unavailable as error:
                self._uptime.restart()
                log.debug("worker_request.not_answered", reason=str(error))
                # What went to all managers is left to those that can answer.
                to_all = message.subject == Subjects.WORKER_REQUEST_TO_ALL
                if to_all or LATER_HEADER not in (message.headers or ()):
                    continue
                chunk = Chunk(b"", 0, f"{LATER}{error}")
            except Exception as error:
                log.exception("worker_request.failed")
                chunk = Chunk(b"", 0, f"{type(error).__name__}: {error}")
            message.respond(encode(chunk))

    async def _source(self, request: SourceRequest) -> Chunk:
        source = await self._queries.source(request.hash)
        encoded = None if source is None else encode(source)
        return _cut(encoded, request.offset, f"no manager has source {request.hash}")

    async def _bundle(self, request: BundleRequest) -> Chunk:
        manifest = await self._queries.bundle(request.hash)
        return _cut(manifest, request.offset, f"no manager has bundle {request.hash}")

    async def _file(self, request: FileRequest) -> Chunk:
        found = await self._queries.file(request.hash, request.offset, CHUNK_BYTES)
        if found is None:
            return Chunk(b"", 0, f"no manager has file {request.hash}")
        return Chunk(*found)

    async def _journal(self, request: JournalRequest) -> Chunk:
        journal = await self._queries.journal(request.run, request.node, request.map_index)
        return _cut(encode(journal), request.offset, "")

    async def _journal_entry(self, request: JournalEntryRequest) -> Chunk:
        """Record an entry for the task's owner; nothing comes back while its row is to come."""
        try:
            entry = await self._queries.record(request)
        except LeaseLost as error:
            return Chunk(b"", 0, f"{LEASE_LOST}{error}")
        return _EMPTY if entry is None else Chunk(encode(entry), 1)

    async def _connection(self, request: ConnectionRequest) -> Chunk:
        """Give a connection to the task's owner."""
        return await self._named(request, self._connections)

    async def _variable(self, request: VariableRequest) -> Chunk:
        """Give a variable to the task's owner."""
        return await self._named(request, self._variables)

    async def _named(
        self,
        request: ConnectionRequest | VariableRequest,
        source: Connections | Variables | None,
    ) -> Chunk:
        """Give what a source has; nothing comes back while the task's row is to come."""
        try:
            # The row of a chained task is made with the result before it, which may be on its way.
            if not await self._queries.has_lease(request):
                return _EMPTY
        except LeaseLost as error:
            return Chunk(b"", 0, f"{LEASE_LOST}{error}")
        if source is None:
            return Chunk(b"", 0, f"{REFUSED}the manager has none")
        try:
            found = await source.read(request.name)
            if isinstance(found, Connection) and found.dags:
                # By the run of the lease, and not by what the task says of itself.
                check_dag(found.name, found.dags, await self._queries.dag_id(request.run))
            return Chunk(encode(found), 1)
        except SecretsUnavailable as error:
            # Not as if the store were away: the attempt fails, and its policy says what follows.
            return Chunk(b"", 0, str(error))
        except (NotFound, ConfigError) as error:
            # A variable may have a default in the task.
            absent = isinstance(error, NotFound) and isinstance(request, VariableRequest)
            return Chunk(b"", 0, f"{ABSENT if absent else REFUSED}{error}")

    async def _start_run(self, request: StartRunRequest) -> Chunk:
        """Start a run for the task's owner; nothing comes back while its row is to come."""
        try:
            if not await self._queries.has_lease(request):
                return _EMPTY
            started_by = await self._queries.starting_task(request)
        except LeaseLost as error:
            return Chunk(b"", 0, f"{LEASE_LOST}{error}")
        if self._execute is None:
            return Chunk(b"", 0, f"{REFUSED}the manager starts no runs")
        wanted = request.wanted
        command = StartRun(
            wanted.dag_id,
            wanted.params,
            wanted.logical_time,
            wanted.run_key,
            started_by.cause,
            wanted.partition,
            started_by=started_by,
        )
        try:
            return Chunk(encode(str(await self._execute(command))), 1)
        except (NotFound, InvalidInput) as error:
            return Chunk(b"", 0, f"{REFUSED}{error}")
        except ServiceStopped as error:
            # As if it were away: the worker repeats its request to another manager.
            raise Unavailable(str(error)) from error

    async def _question(self, request: TaskQuestionRequest) -> Chunk:
        """Answer a task of Airflow's; nothing comes back while its row is to come."""
        try:
            found = await self._questions.answer(request)
        except LeaseLost as error:
            return Chunk(b"", 0, f"{LEASE_LOST}{error}")
        except (InvalidInput, ConfigError) as error:
            return Chunk(b"", 0, f"{REFUSED}{error}")
        except ServiceStopped as error:
            raise Unavailable(str(error)) from error
        return _EMPTY if found is None else _cut(found, request.offset, "")

    async def _lease(self, request: LeaseRequest) -> Chunk:
        holder = await self._queries.lease(request)
        if holder is None:
            status = LeaseStatus.VOID
        elif holder.worker in (None, request.worker) or holder.silent_seconds is None:
            status = LeaseStatus.FREE
        # Right after a reconnect no worker has been heard yet: the holder may well live.
        elif holder.silent_seconds < SILENT_SECONDS or self._uptime.seconds < BEAT_SECONDS:
            status = LeaseStatus.TAKEN
        else:
            status = LeaseStatus.FREE
        return Chunk(encode(status), 1)

    async def _events(self, request: EventsRequest) -> Chunk:
        events, total = await self._queries.events(request.run, request.offset, EVENTS_A_CHUNK)
        room = CHUNK_BYTES
        encoded: list[Raw] = []
        for event in events:
            data = encode(event)
            if encoded and len(data) > room:
                break
            encoded.append(Raw(data))
            room -= len(data)
        return Chunk(encode(encoded), total)

    async def _pulled(self, request: PullRequest) -> Chunk:
        return _cut(encode(await self._queries.pulled(request)), request.offset, "")

    async def _state(self, request: StateRequest) -> Chunk:
        return Chunk(encode(await self._queries.state(request.run, request.name)), 1)

    async def _previous_success(self, request: PreviousSuccessRequest) -> Chunk:
        return Chunk(encode(await self._queries.previous_success(request.run)), 1)

    async def _live_runs(self, request: LiveRunsRequest) -> Chunk:
        return Chunk(encode(await self._queries.live_runs(request.runs)), 1)

    async def _result(self, request: ResultRequest) -> Chunk:
        missing = "that task has no result"
        values = await self._queries.results(request.run, request.node, request.map_index)
        if request.map_index is None:
            value = encode([Raw(value or _NIL) for value in values])
        elif values:
            value = values[0] or _NIL
        else:
            return _cut(None, request.offset, missing)
        if request.element is None or is_stored(value):
            return _cut(value, request.offset, missing)
        elements = elements_of(value)
        if not 0 <= request.element < len(elements):
            return _cut(None, request.offset, missing)
        return _cut(bytes(elements[request.element]), request.offset, missing)


def _cut(data: bytes | None, offset: int, missing: str) -> Chunk:
    if data is None:
        return Chunk(b"", 0, missing)
    return Chunk(data[offset : offset + CHUNK_BYTES], len(data))
