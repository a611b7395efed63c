"""Tells an endpoint of one run: what it must be told, in order, and what it has taken already."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from uuid import UUID

import anyio
import msgspec
import structlog
from msgspec import Struct

from pubsubflow.lineage.events import start_of, story_of
from pubsubflow.lineage.openlineage import EventType, RunEvent
from pubsubflow.lineage.transport import Answer, Endpoint, Verdict
from pubsubflow.model.lineage import TracedRun
from pubsubflow.model.runs.states import RunState

log = structlog.get_logger()

_REMEMBERED_RUNS = 10_000
_MAX_DOUBLINGS = 10

_encode = msgspec.json.Encoder().encode
_Taken = set[tuple[UUID, EventType]]


class Pace(Struct, frozen=True, kw_only=True):
    """How patiently an endpoint is asked that does not take an event.

    Attributes:
        delays_seconds: Pauses between tries; then the news goes back to the stream.
        return_seconds: After how long it comes again the first time; twice as long each time.
        max_return_seconds: After how long at most.
    """

    delays_seconds: tuple[float, ...] = (0.2, 1.0, 5.0)
    return_seconds: float = 5.0
    max_return_seconds: float = 60.0

    def return_delay(self, attempts: int) -> float:
        """Return the pause in seconds before news that was tried `attempts` times comes again."""
        doublings = min(max(attempts - 1, 0), _MAX_DOUBLINGS)
        return float(min(self.return_seconds * 2**doublings, self.max_return_seconds))


class Telling:
    """Sends the events of runs, and remembers what was taken until a run's end is told.

    Args:
        endpoint: Takes events.
        namespace: The namespace of all jobs.
        pace: How often an event is tried.
        stopping: Ends trying again.
    """

    def __init__(
        self, endpoint: Endpoint, *, namespace: str, pace: Pace, stopping: anyio.Event
    ) -> None:
        self._endpoint = endpoint
        self._namespace = namespace
        self._delays = pace.delays_seconds
        self._stopping = stopping
        self._taken: OrderedDict[UUID, _Taken] = OrderedDict()
        self._away = False

    async def tell(self, run: TracedRun, *, ended: bool) -> Verdict:
        """Tell of a run, and return what became of that.

        Args:
            run: The run as it is now.
            ended: Whether the news is that it has ended. Other news is out of date once it has.

        Returns:
            AWAY when it must be tried again, REFUSED when some event was refused for ever.
        """
        if run.state is RunState.QUEUED or (run.state.final and not ended):
            return Verdict.TAKEN
        if not run.state.final:
            return await self._send(run.run_id, [start_of(run, self._namespace)])
        verdict = await self._send(run.run_id, story_of(run, self._namespace))
        if verdict is not Verdict.AWAY:
            self._taken.pop(run.run_id, None)
        return verdict

    async def _send(self, run_id: UUID, events: Sequence[RunEvent]) -> Verdict:
        taken = self._remember(run_id)
        worst = Verdict.TAKEN
        for event in events:
            key = (event.run.run_id, event.event_type)
            if key in taken:
                continue
            answer = await self._insist(_encode(event))
            if answer.verdict is Verdict.AWAY:
                return Verdict.AWAY
            if answer.verdict is Verdict.REFUSED:
                worst = Verdict.REFUSED
                log.error("lineage.refused", run_id=str(run_id), reason=answer.reason)
            taken.add(key)
        return worst

    async def _insist(self, body: bytes) -> Answer:
        """Send an event, again after each delay while the endpoint is away."""
        for delay in self._delays:
            answer = await self._post(body)
            if answer.verdict is not Verdict.AWAY or self._stopping.is_set():
                return answer
            with anyio.move_on_after(delay):
                await self._stopping.wait()
        return await self._post(body)

    async def _post(self, body: bytes) -> Answer:
        answer = await self._endpoint.post(body)
        away = answer.verdict is Verdict.AWAY
        if away is not self._away:
            self._away = away
            say: Callable[..., object] = log.warning if away else log.info
            say("lineage.away" if away else "lineage.back", reason=answer.reason)
        return answer

    def _remember(self, run_id: UUID) -> _Taken:
        """Return what was taken of a run; runs that were told of longest ago are forgotten."""
        taken = self._taken.setdefault(run_id, set())
        self._taken.move_to_end(run_id)
        while len(self._taken) > _REMEMBERED_RUNS:
            self._taken.popitem(last=False)
        return taken
