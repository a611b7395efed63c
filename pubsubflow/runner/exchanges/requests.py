"""Requests of tasks to the managers, as generators without I/O that sync and async runners share.

Each one yields a request, is sent the reply, and returns what the task needs.
"""

import time
from collections.abc import Awaitable, Callable, Generator
from typing import TypeVar, cast

import anyio
import msgspec

from pubsubflow.errors import ConfigError, LeaseLost, NotFound, ResultLost, Unavailable
from pubsubflow.model.connections import Connection
from pubsubflow.model.values.variables import Variable
from pubsubflow.model.wire.elements import elements_of
from pubsubflow.model.wire.messages import (
    EventInfo,
    JournalEntry,
    PublishedEvent,
    decode_journal_entry,
    encode,
)
from pubsubflow.model.wire.stored_results import (
    StoredInput,
    decode_items,
    decode_stored,
    is_list,
    is_stored,
    may_hold_stored,
)
from pubsubflow.model.wire.worker_requests import (
    ABSENT,
    LEASE_LOST,
    REFUSED,
    RESULT_LOST,
    Chunk,
    ConnectionRequest,
    EventsRequest,
    JournalEntryRequest,
    JournalRequest,
    PullRequest,
    ResultRequest,
    StartRunRequest,
    TaskQuestionRequest,
    VariableRequest,
    decode_connection,
    decode_run_id,
    decode_variable,
)
from pubsubflow.runner.protocol import RunnerRequest

_RETRY_SECONDS = 0.02
_GIVE_UP_SECONDS = 10.0

Result = TypeVar("Result")
Exchange = Generator[RunnerRequest, Chunk, Result]
_decode_events = msgspec.msgpack.Decoder(tuple[EventInfo, ...]).decode


def run_exchange(exchange: Exchange[Result], send: Callable[[RunnerRequest], Chunk]) -> Result:
    """Send the requests of an exchange one after the other, and return its result."""
    try:
        request: RunnerRequest = next(exchange)
        while True:
            request = exchange.send(send(request))
    except StopIteration as stop:
        return cast("Result", stop.value)


async def run_exchange_async(
    exchange: Exchange[Result], send: Callable[[RunnerRequest], Awaitable[Chunk]]
) -> Result:
    """Send the requests of an exchange without blocking the tasks beside it."""
    try:
        request: RunnerRequest = next(exchange)
        while True:
            request = exchange.send(await send(request))
    except StopIteration as stop:
        return cast("Result", stop.value)


def fetch_result(
    request: ResultRequest | JournalRequest | PullRequest | StoredInput,
) -> Exchange[bytes]:
    """Fetch an encoded result, also from the result store, or a journal or the reply to a pull.

    Raises:
        Unavailable: No manager answers, the result does not exist, or the result store is away.
        ResultLost: The executor that kept the result does not have it any more.
    """
    if isinstance(request, StoredInput):
        return (yield from _fetch_stored(request.data))
    data = yield from _fetch_whole(request)
    if not isinstance(request, ResultRequest) or not may_hold_stored(data):
        return data
    whole = request.element is not None and request.map_index is not None and is_stored(data)
    data = yield from _fetch_stored(data)
    # The manager cannot look into a list that is stored.
    return bytes(elements_of(data)[request.element or 0]) if whole else data


def _fetch_stored(data: bytes) -> Exchange[bytes]:
    """Return a result with what it refers to in its place: it, or elements of it, may be stored."""
    stored = decode_stored(data)
    if stored is not None:
        chunk = yield stored
        if chunk.error is not None and chunk.error.startswith(RESULT_LOST):
            raise ResultLost(chunk.error.removeprefix(RESULT_LOST))
        return _checked(chunk).data
    if not may_hold_stored(data) or not is_list(data):
        return data
    items = []
    for item in decode_items(data):
        found = bytes(item)
        items.append(msgspec.Raw((yield from _fetch_stored(found)) if is_stored(found) else found))
    return encode(items)


def _fetch_whole(request: ResultRequest | JournalRequest | PullRequest) -> Exchange[bytes]:
    """Fetch what a manager has, chunk by chunk."""
    data = b""
    while True:
        chunk = _checked((yield msgspec.structs.replace(request, offset=len(data))))
        data += chunk.data
        if len(data) >= chunk.total or not chunk.data:
            return data


def fetch_events(run: int) -> Exchange[list[EventInfo]]:
    """Fetch the events that a run consumed, chunk by chunk.

    Raises:
        Unavailable: No manager answers.
    """
    events: list[EventInfo] = []
    while True:
        chunk = _checked((yield EventsRequest(run, len(events))))
        more = _decode_events(chunk.data) if chunk.data else ()
        events += more
        if len(events) >= chunk.total or not more:
            return events


def fetch_small(request: RunnerRequest) -> Exchange[bytes]:
    """Fetch what fits into one reply.

    Raises:
        Unavailable: No manager answers.
    """
    return _checked((yield request)).data


def publish_event(event: PublishedEvent) -> Exchange[None]:
    """Publish an event, and return when it is stored.

    Raises:
        Unavailable: The bus refuses it.
    """
    chunk = yield event
    if chunk.error is not None:
        raise Unavailable(f"the event was not published: {chunk.error}")


def fetch_connection(request: ConnectionRequest) -> Exchange[Connection]:
    """Fetch a connection with its secrets.

    Raises:
        LeaseLost: The task belongs to another worker by now.
        ConfigError: The connection does not exist, or its secrets cannot be decrypted.
        Unavailable: No manager answers.
    """
    return decode_connection((yield from _fetch_fenced(request, "connection")))


def fetch_variable(request: VariableRequest) -> Exchange[Variable]:
    """Fetch a variable with its value.

    Raises:
        LeaseLost: The task belongs to another worker by now.
        NotFound: The variable does not exist.
        ConfigError: It cannot be decrypted.
        Unavailable: No manager answers.
    """
    return decode_variable((yield from _fetch_fenced(request, "variable")))


def _fetch_fenced(request: ConnectionRequest | VariableRequest, kind: str) -> Exchange[bytes]:
    """Fetch what a manager gives to the owner of a task alone, once it knows of the task."""
    give_up_at = time.monotonic() + _GIVE_UP_SECONDS
    while True:
        chunk = yield request
        error = chunk.error or ""
        if error.startswith(LEASE_LOST):
            raise LeaseLost(error.removeprefix(LEASE_LOST))
        if error.startswith(ABSENT):
            raise NotFound(kind, request.name)
        if error.startswith(REFUSED):
            raise ConfigError(_with_remedy(error.removeprefix(REFUSED), kind, request.name))
        if _checked(chunk).total:
            return chunk.data
        if time.monotonic() > give_up_at:
            raise Unavailable(
                f"{kind} {request.name!r} was not read: no manager knows of the task yet"
            )
        time.sleep(_RETRY_SECONDS)


def _with_remedy(refusal: str, kind: str, name: str) -> str:
    if refusal != str(NotFound(kind, name)):
        return refusal
    return f"{refusal}: set it with `pubsubflow {kind}s set {name}`"


def fetch_answer(request: TaskQuestionRequest) -> Exchange[bytes]:
    """Fetch the encoded answer to a question, chunk by chunk.

    Raises:
        LeaseLost: The task belongs to another worker by now.
        ConfigError: The question is refused.
        Unavailable: No manager answers.
    """
    give_up_at = time.monotonic() + _GIVE_UP_SECONDS
    data = b""
    while True:
        chunk = yield msgspec.structs.replace(request, offset=len(data))
        error = chunk.error or ""
        if error.startswith(LEASE_LOST):
            raise LeaseLost(error.removeprefix(LEASE_LOST))
        if error.startswith(REFUSED):
            raise ConfigError(error.removeprefix(REFUSED))
        data += _checked(chunk).data
        if chunk.total and len(data) >= chunk.total:
            return data
        if not chunk.data:
            if time.monotonic() > give_up_at:
                raise Unavailable("a question was not answered: no manager knows of the task yet")
            time.sleep(_RETRY_SECONDS)


async def start_run(
    send: Callable[[RunnerRequest], Awaitable[Chunk]], request: StartRunRequest
) -> str:
    """Start a run, and return its id.

    Raises:
        LeaseLost: The task belongs to another worker by now.
        ConfigError: The DAG does not exist, or refuses the run.
        Unavailable: No manager answers.
    """
    give_up_at = time.monotonic() + _GIVE_UP_SECONDS
    while True:
        chunk = await send(request)
        error = chunk.error or ""
        if error.startswith(LEASE_LOST):
            raise LeaseLost(error.removeprefix(LEASE_LOST))
        if error.startswith(REFUSED):
            raise ConfigError(error.removeprefix(REFUSED))
        if _checked(chunk).total:
            return decode_run_id(chunk.data)
        if time.monotonic() > give_up_at:
            raise Unavailable(
                f"no run of {request.wanted.dag_id!r} was started: no manager knows of the task yet"
            )
        await anyio.sleep(_RETRY_SECONDS)


async def record_entry(
    send: Callable[[RunnerRequest], Awaitable[Chunk]], request: JournalEntryRequest
) -> JournalEntry:
    """Record an entry in the task's journal, and return the entry that stands there.

    Raises:
        LeaseLost: The task belongs to another worker by now.
        Unavailable: No manager answers.
    """
    give_up_at = time.monotonic() + _GIVE_UP_SECONDS
    while True:
        chunk = await send(request)
        if chunk.error is not None and chunk.error.startswith(LEASE_LOST):
            raise LeaseLost(chunk.error.removeprefix(LEASE_LOST))
        if _checked(chunk).total:
            return decode_journal_entry(chunk.data)
        if time.monotonic() > give_up_at:
            raise Unavailable(
                f"step {request.entry.label!r} was not recorded: no manager knows of the task yet"
            )
        # An empty reply: the row of a chained task is written with the result of the node before
        # it, and the manager has not processed that result yet.
        await anyio.sleep(_RETRY_SECONDS)


def _checked(chunk: Chunk) -> Chunk:
    if chunk.error is not None:
        raise Unavailable(f"the task's request was not answered: {chunk.error}")
    return chunk
