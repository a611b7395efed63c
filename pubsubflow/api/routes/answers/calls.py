"""Routes of calls: start a run of a DAG and answer with its result."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

import anyio
import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from pubsubflow.api.auth.middleware import PRINCIPAL, execute_audited, note_object, remote
from pubsubflow.api.http import routing
from pubsubflow.api.http.problems import PROBLEM, BadRequest
from pubsubflow.api.http.requests import NoQuery, decode_body, parse_query, run_id, to_utc
from pubsubflow.api.http.responses import encode, json_response
from pubsubflow.api.http.routing import Access, Route
from pubsubflow.api.routes.runs.run_requests import IDEMPOTENCY, with_request_key
from pubsubflow.api.server.fair_queue import RequestShares
from pubsubflow.model.api.calls import CallAnswer
from pubsubflow.model.api.resources import Problem
from pubsubflow.model.runs.states import RunState
from pubsubflow.model.wire.commands import CommandHandler, StartRun
from pubsubflow.redaction import redact
from pubsubflow.store.objects.answers import RunFailure
from pubsubflow.store.read.read_models import ReadModels
from pubsubflow.wakeup import RunEnds, Wakeups

_SWEEP_SECONDS = 5.0
_NEW_SECONDS = 0.05
Text = Annotated[str, Meta(min_length=1, max_length=512)]
TimeLimit = Annotated[float, Meta(ge=0, le=300)]


class CallRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a call.

    Attributes:
        params: Values in place of the DAG's defaults.
        timeout: Seconds to wait for the result at most.
        logical_time: The moment that the run is about, with a zone.
        partition: The partition that it is about.
        run_key: A second call with the same key is answered with the result of the same run.
        cause: Why it is called: one line for people.
    """

    params: dict[str, Any] | None = None
    timeout: TimeLimit = 30.0
    logical_time: Annotated[datetime, Meta(tz=True)] | None = None
    partition: Text | None = None
    run_key: Text | None = None
    cause: Text = "called through the API"


class ResultQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of the result of a run.

    Attributes:
        timeout: Seconds to wait for it at most.
    """

    timeout: TimeLimit = 0.0


class _RunEvent(Struct, frozen=True):
    """The content of a run's event, as far as a caller needs it."""

    state: RunState


_decoder = msgspec.json.Decoder(CallRequest)
_decode_event = msgspec.json.Decoder(_RunEvent).decode


class CallRoutes:
    """Handlers of `/api/v1/dags/{dag_id}/call` and `/api/v1/runs/{run_id}/result`.

    Args:
        commands: Starts runs.
        read_models: Reads results.
        wakeups: Notifies when a run has ended.
        ends: Notifies earlier, and with the result, if the manager of this daemon ends the run.
        most: How many callers may wait at once.
    """

    def __init__(
        self,
        commands: CommandHandler,
        read_models: ReadModels,
        wakeups: Wakeups,
        ends: RunEnds,
        *,
        most: int,
    ) -> None:
        self._commands = commands
        self._read_models = read_models
        self._wakeups = wakeups
        self._ends = ends
        self._shares = RequestShares(most)

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        answers = {200: CallAnswer, 202: CallAnswer}
        yield routing.post(
            "/api/v1/dags/{dag_id}/call",
            self.call,
            access=Access.OPERATOR,
            query=NoQuery,
            body=CallRequest,
            body_required=False,
            responses=answers,
            problems=(424, 429),
            headers=IDEMPOTENCY,
            audit_in_command=True,
        )
        yield routing.get(
            "/api/v1/runs/{run_id}/result",
            self.result,
            query=ResultQuery,
            responses=answers,
            problems=(422, 424, 429),
            allow_head=False,
        )

    async def call(self, request: web.Request) -> web.Response:
        """Start a run and answer with its result.

        If the time is over first, the answer is 202 with the run, whose result is at `Location`. A
        run that fails is answered with 424 and the error of its task. The run goes on if the caller
        does not wait.
        """
        payload = decode_body(await request.read() or b"{}", _decoder)
        command = StartRun(
            request.match_info["dag_id"],
            payload.params,
            to_utc(payload.logical_time, field="logical_time"),
            payload.run_key,
            payload.cause,
            payload.partition,
            answered=True,
        )
        with self._waiting(request):
            command = with_request_key(command, request)
            started = await execute_audited(request, command, self._commands)
            note_object(request, f"{request.match_info['dag_id']}/{started}")
            new = command.run_key is None
            return await self._answer(UUID(started), payload.timeout, new=new)

    async def result(self, request: web.Request) -> web.Response:
        """Return the result of a run of a DAG that has one, once the run has ended."""
        key, params = run_id(request), parse_query(request, ResultQuery)
        with self._waiting(request):
            return await self._answer(key, params.timeout)

    @contextmanager
    def _waiting(self, request: web.Request) -> Iterator[None]:
        """Count a caller within the block.

        Raises:
            BadRequest: Too many wait already (429).
        """
        principal = request.get(PRINCIPAL)
        share = f"token:{principal.token}" if principal and principal.token else remote(request)
        share = share or ""
        if not self._shares.has_room(share):
            raise BadRequest(
                "too many calls wait for their results: call again later, or start runs without "
                "waiting for them ([api] max_calls)",
                status=429,
                headers={"Retry-After": "1"},
            )
        with self._shares.take(share):
            yield

    async def _answer(self, key: UUID, seconds: float, *, new: bool = False) -> web.Response:
        """Return the answer once the run has ended, or when the time is over.

        Args:
            key: The run.
            seconds: How long to wait at most.
            new: It has been made just now, so it has hardly ended.
        """
        give_up = anyio.current_time() + seconds
        subject = f"psf.evt.run.{key}"
        with self._ends.awaited(str(key)) as end:
            # A run that was made just now is read once its end is announced, or soon.
            async with self._wakeups.on(subject, when=_has_ended, wakeup=end, confirmed=not new):
                await end.wait(min(seconds, _NEW_SECONDS) if new else 0)
                while end.result is None:
                    found = await self._read_models.answers.get(key)
                    if isinstance(found, RunFailure):
                        return _failed(found)
                    if RunState(found.state).final:
                        return json_response(found)
                    left = give_up - anyio.current_time()
                    if left <= 0 or self._wakeups.stopping:
                        response = json_response(found, status=202)
                        response.headers["Location"] = f"/api/v1/runs/{key}/result"
                        return response
                    await end.wait(min(left, _SWEEP_SECONDS))
        return json_response(await self._read_models.answers.of_result(key, end.result))


def _has_ended(event: bytes) -> bool:
    """Return whether a run's event says that it has ended."""
    return _decode_event(event).state.final


def _failed(failure: RunFailure) -> web.Response:
    status = HTTPStatus.FAILED_DEPENDENCY
    problem = Problem(
        title=status.phrase,
        status=status,
        detail=redact(failure.reason),
        run_id=failure.run_id,
        task=failure.task,
        error=failure.error,
    )
    return web.Response(body=encode(problem), status=status, content_type=PROBLEM)
