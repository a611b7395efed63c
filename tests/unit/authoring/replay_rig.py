"""Plays worker and manager for one async task: runs it, records, answers waits, retries."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import anyio
import msgspec

from pubsubflow import DAG, task
from pubsubflow.authoring.runtime.bind import bind
from pubsubflow.authoring.runtime.journal import TaskDeferred
from pubsubflow.model.runs.waits import Happening, Waiting, begin_wait, failure, happen, outcome
from pubsubflow.model.wire.messages import EventInfo, RunInfo, Step, TaskError
from pubsubflow.runner.failures import outcome_of

NOW = datetime(2026, 11, 20, 16, tzinfo=UTC)


class Host:
    """What a task sees of its process.

    Attributes:
        steps: The record.
        waited: What the task waited for, in order.
        logged: Its warnings.
        lose: Called with each step; `before` or `after` lets the process die before or after it is
            recorded.
        kept: Called with each step that is recorded.
    """

    def __init__(self, steps: Sequence[Step] = ()) -> None:
        self.steps = list(steps)
        self.waited: list[Waiting] = []
        self.logged: list[str] = []
        self.published: list[str] = []
        self.lose: Callable[[Step], str | None] = lambda _: None
        self.kept: Callable[[Step], None] = lambda _: None
        self.scope: anyio.CancelScope | None = None
        self.error: Exception | None = None
        self.recorded = 0

    def write_log(self, level, event, fields):
        assert (level, fields) == ("warning", {})
        self.logged.append(event)

    async def apublish(self, event):
        self.published.append(event.key)

    def fetch_connection(self, name):
        raise AssertionError(f"nothing asks for a connection, {name} neither")

    def now(self):
        return NOW.timestamp()

    async def record(self, step):
        await anyio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error
        verdict = self.lose(step)
        known = next((each for each in self.steps if each.key == step.key), None)
        if verdict != "before" and known is None:
            self.steps.append(step)
            self.kept(step)
        if verdict is not None:
            self.scope.cancel()
            await anyio.sleep_forever()
        return known or step

    def describe(self, error):
        return outcome_of(error)[1]


Answer = Callable[[Waiting], Step]


def happened(waiting: Waiting, payload=None, *, slot: int = 0) -> Step:
    """Return a wait's outcome: so many slots from `slot` on happen."""
    for place in range(slot, slot + waiting.need):
        known = waiting.waits[place]
        data = msgspec.msgpack.encode(payload)
        if known.kind == "event":
            event = EventInfo(f"e{payload}", known.name, {"n": payload}, None, NOW, "test")
            data = msgspec.msgpack.encode(event)
        number = payload if isinstance(payload, int) else 0
        waiting = happen(waiting, Happening(place, msgspec.Raw(data), f"id{place}", number))
    return outcome(waiting)


def timed_out(waiting: Waiting) -> Step:
    return failure(waiting, TaskError("WaitTimeout", f"{waiting.label} did not happen in time"))


INFO = RunInfo(1, "run", "d", "manual", {}, None, None, "a test", NOW, ())


async def run_once(dag: DAG, host: Host, attempt: int = 1):
    """Run the DAG's only task from its top; raises what it raises, or TaskDeferred."""
    call = bind(dag, 0, info=INFO, attempt=attempt, host=host, steps=host.steps)
    return await call.run()


async def play(dag: DAG, answer: Answer = happened, host: Host | None = None):
    """Run the DAG's only task through all its waits, and return its value."""
    host = host or Host()
    while True:
        try:
            return await run_once(dag, host)
        except TaskDeferred as deferred:
            waiting = begin_wait(deferred.waiting, NOW.timestamp())
            host.waited.append(waiting)
            host.steps.append(answer(waiting))


def only(function, **options) -> DAG:
    """Return a DAG with one task."""
    with DAG("d") as dag:
        task(**options)(function)()
    return dag
