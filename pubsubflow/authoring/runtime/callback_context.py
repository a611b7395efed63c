"""Context of a callback: the run and the task that it is about, connections and a log."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from pubsubflow.authoring.runtime.context import CurrentRun, TaskInfo
from pubsubflow.authoring.runtime.logger import TaskLogger, WriteLog
from pubsubflow.authoring.runtime.result_keys import NO_DEFAULT
from pubsubflow.errors import NotFound
from pubsubflow.model.callbacks import CallbackFacts, FailedTask
from pubsubflow.model.connections import Connection
from pubsubflow.model.values.variables import Variable


class CallbackContext:
    """What a function or notifier in `on_failure=` and the like gets.

    Attributes:
        kind: `on_success`, `on_failure`, `on_retry`, `on_skipped`, `deadline` or `fresh`.
        run: The run, as in the context of a task; None for a dataset.
        task: The task; None for a callback of a run.
        attempt: The attempt of the task that ended.
        state: The state of the task, or of the run.
        error: The error in one line, if any.
        failed: The failed tasks of a run, with their errors.
        dataset: The URI of a dataset whose events are missing.
        since: The moment of its last event.
        alert: The number of the alert; None for outcomes.
        text: What happened, in one line.
        tries: The number of this try of the call, from 1.
        call: The number of the call, the same over all tries.
        log: Writes to the output of the call, which `tasks show` has.

    Args:
        facts: What is known.
        read_connection: Returns a connection with its secrets.
        read_variable: Returns a variable; None if it is not set.
        write_log: Adds a line to the output.
    """

    def __init__(
        self,
        facts: CallbackFacts,
        *,
        read_connection: Callable[[str], Connection],
        read_variable: Callable[[str], Variable | None],
        write_log: WriteLog,
    ) -> None:
        self._read_connection = read_connection
        self._read_variable = read_variable
        self.kind = facts.kind
        self.run = _run_of(facts)
        self.task = _task_of(facts)
        self.dag_id = facts.dag_id
        self.attempt = facts.attempt
        self.state = facts.state
        self.error = facts.error
        self.failed: tuple[FailedTask, ...] = facts.failed
        self.dataset = facts.dataset
        self.since = facts.since
        self.alert = facts.alert
        self.text = facts.text or describe(facts)
        self.tries = facts.tries
        self.call = facts.call
        self.log = TaskLogger(write_log)

    def connection(self, name: str) -> Connection:
        """Return a connection with its secrets; the output masks them.

        Raises:
            ConfigError: It does not exist, or its secrets cannot be decrypted.
        """
        return self._read_connection(name)

    def variable(self, name: str, default: Any = NO_DEFAULT) -> Any:
        """Return the value of a variable.

        Raises:
            NotFound: No value is set, and none is given as the default.
        """
        found = self._read_variable(name)
        if found is not None:
            return found.value
        if default is NO_DEFAULT:
            raise NotFound("variable", name, f"set it with `pubsubflow variables set {name}`")
        return default


def describe(facts: CallbackFacts) -> str:
    """Return what happened, in one line."""
    what = f"run {facts.run_id} of DAG {facts.dag_id}"
    if facts.task_id is not None:
        index = f".{facts.map_index}" if facts.map_index >= 0 else ""
        what = f"task {facts.task_id}{index} in {what}"
    if facts.kind == "on_retry":
        verb = f"is tried again after attempt {facts.attempt}"
    else:
        verb = {"success": "succeeded", "skipped": "was skipped"}.get(facts.state, facts.state)
    names = ", ".join(each.task_id for each in facts.failed)
    reason = facts.error or (f"failed tasks: {names}" if names else "")
    return f"{what} {verb}" + (f": {reason}" if reason else "")


def _run_of(facts: CallbackFacts) -> CurrentRun | None:
    if facts.run_id is None:
        return None
    return CurrentRun(
        facts.run_id,
        facts.dag_id or "",
        facts.run_kind,
        facts.params or {},
        facts.logical_time,
        facts.partition,
        facts.cause,
        facts.created_at or datetime.now(UTC),
    )


def _task_of(facts: CallbackFacts) -> TaskInfo | None:
    if facts.task_id is None:
        return None
    return TaskInfo(facts.task_id, facts.map_index, facts.node or 0, ())
