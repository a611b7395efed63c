"""Replay of one async task, without worker and manager: runs it, records, completes its waits."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import anyio
import msgspec

from pubsubflow import DAG, task
from pubsubflow.authoring.bind import RunnableDag, bind
from pubsubflow.authoring.runtime.wait_specs import TaskDeferred
from pubsubflow.model.runs.waits import begin_wait, complete_wait, completed_entry, failed_entry
from pubsubflow.model.wire.messages import EventInfo, JournalEntry, RunInfo, TaskError
from pubsubflow.model.wire.waits import WaitCompletion, WaitSet
from pubsubflow.runner.failures import outcome_of

NOW = datetime(2026, 11, 20, 16, tzinfo=UTC)


class RecordingHost:
    """RecordingHost process of a task: keeps its journal, and may end at any entry.

    Attributes:
        journal: Its entries.
        waited: What the task waited for, in order.
        logged: Its warnings.
        ends_at: Called with each entry; returns `before` or `after` to end the process before or
            after the entry is recorded.
        on_recorded: Called with each entry that is recorded.
    """

    def __init__(self, journal: Sequence[JournalEntry] = ()) -> None:
        self.journal = list(journal)
        self.waited: list[WaitSet] = []
        self.logged: list[str] = []
        self.published: list[str] = []
        self.ends_at: Callable[[JournalEntry], str | None] = lambda _: None
        self.on_recorded: Callable[[JournalEntry], None] = lambda _: None
        self.scope: anyio.CancelScope | None = None
        self.error: Exception | None = None
        self.recorded = 0

    async def start_run(self, _):
        raise NotImplementedError

    def write_log(self, level, event, fields):
        assert (level, fields) == ("warning", {})
        self.logged.append(event)

    async def apublish(self, event):
        self.published.append(event.key)

    def fetch_connection(self, name):
        raise AssertionError(f"no test task uses a connection: {name}")

    def now(self):
        return NOW.timestamp()

    async def record(self, entry):
        await anyio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error
        end = self.ends_at(entry)
        known = next((each for each in self.journal if each.key == entry.key), None)
        if end != "before" and known is None:
            self.journal.append(entry)
            self.on_recorded(entry)
        if end is not None:
            self.scope.cancel()
            await anyio.sleep_forever()
        return known or entry

    def describe(self, error):
        return outcome_of(error)[1]


Answer = Callable[[WaitSet], JournalEntry]


def completed(wait_set: WaitSet, payload=None, *, slot: int = 0) -> JournalEntry:
    """Return the entry of a wait whose waits from `slot` on are completed, as many as it needs."""
    for index in range(slot, slot + wait_set.required):
        wait = wait_set.waits[index]
        data = msgspec.msgpack.encode(payload)
        if wait.kind == "event":
            event = EventInfo(f"e{payload}", wait.name, {"n": payload}, None, NOW, "test")
            data = msgspec.msgpack.encode(event)
        number = payload if isinstance(payload, int) else 0
        wait_set = complete_wait(
            wait_set, WaitCompletion(index, msgspec.Raw(data), f"id{index}", number)
        )
    return completed_entry(wait_set)


def timed_out(wait_set: WaitSet) -> JournalEntry:
    return failed_entry(
        wait_set, TaskError("WaitTimeout", f"{wait_set.label} did not happen in time")
    )


INFO = RunInfo(1, "run", "d", "manual", {}, None, None, "a test", NOW, ())


async def run_once(dag: DAG, host: RecordingHost, attempt: int = 1):
    """Run the DAG's only task from its top; raises what it raises, or TaskDeferred."""
    runnable = RunnableDag(dag)
    call = bind(runnable, 0, info=INFO, attempt=attempt, host=host, journal=host.journal)
    return await call.run()


async def run_through(dag: DAG, answer: Answer = completed, host: RecordingHost | None = None):
    """Run the DAG's only task through all its waits, and return its value."""
    host = host or RecordingHost()
    while True:
        try:
            return await run_once(dag, host)
        except TaskDeferred as deferred:
            wait_set = begin_wait(deferred.wait_set, NOW.timestamp())
            host.waited.append(wait_set)
            host.journal.append(answer(wait_set))


def dag_of(function, **options) -> DAG:
    """Return a DAG with one task."""
    with DAG("d") as dag:
        task(**options)(function)()
    return dag
