"""A live task instance of an in-process run."""

import anyio

from pubsubflow.authoring.runtime.inprocess import LogLine
from pubsubflow.model.runs.states import TaskState
from pubsubflow.model.wire.messages import JournalEntry, TaskError
from pubsubflow.model.wire.waits import WaitSet
from pubsubflow.testing.attempts import Instance
from pubsubflow.testing.callbacks import EndedAttempt


class LiveInstance:
    """A live task instance.

    Attributes:
        journal: The entries of its journal.
        wait_set: Its present wait.
        called: When it last read the time, and the number of events in the log then.
        worked: Real seconds that the attempt has worked.
        waited: Virtual seconds that the attempt has waited.
        runs: Whether an attempt is at its function.
        scope: Of its attempts; cancelled when it is stopped.
    """

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.attempt = 0
        self.logs: list[LogLine] = []
        self.journal: list[JournalEntry] = []
        self.wait_set: WaitSet | None = None
        self.called = (0.0, 0)
        self.worked = 0.0
        self.waited = 0.0
        self.runs = False
        self.scope = anyio.CancelScope()

    @property
    def state(self) -> TaskState:
        """Its state, as far as a stop of it differs by that."""
        return TaskState.RUNNING if self.runs else TaskState.QUEUED

    def ending(self, state: TaskState, error: TaskError | None) -> EndedAttempt:
        """Return how its attempt has ended."""
        instance = self.instance
        return EndedAttempt(instance.task.node, instance.map_index, self.attempt, state, error)
