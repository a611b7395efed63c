"""The results of attempts, and what else their processes say: published, stored or forwarded."""

from collections.abc import Callable

import anyio.abc

from pubsubflow.model.wire.messages import Outcome, TaskError, decode_result
from pubsubflow.runner.protocol import StoredObjects
from pubsubflow.worker.assignment import Assignment, AttemptOutcome
from pubsubflow.worker.manager_client import ManagerClient
from pubsubflow.worker.result_publisher import ResultPublisher
from pubsubflow.worker.result_store import ResultStore, ResultUploads

_KEPT_OUTCOMES = (Outcome.SUCCESS, Outcome.SKIPPED)


class AttemptResults:
    """Handles what happens in the processes of a pool: its `RunnerEvents`.

    Args:
        worker: Id of the worker.
        group: The task group in which large results are stored.
        managers: Forwards the tasks' requests.
        publisher: Publishes results, events and output.
        results: Stores and reads large results.
        on_node_over: Called with an assignment whose node has a result, and the next node.
        on_storing: Called with one that has ended, and whose result is being stored.
        on_over: Called with one of which nothing is left to run.
        on_unbegun: Called with one that has not begun in its process, and does not any more.

    Attributes:
        uploads: The large results that are being stored.
    """

    def __init__(
        self,
        worker: str,
        group: anyio.abc.TaskGroup,
        *,
        managers: ManagerClient,
        publisher: ResultPublisher,
        results: ResultStore,
        on_node_over: Callable[[Assignment, int], None],
        on_storing: Callable[[Assignment], None],
        on_over: Callable[[Assignment], None],
        on_unbegun: Callable[[Assignment], None],
    ) -> None:
        self._worker = worker
        self._publisher = publisher
        self._on_node_over = on_node_over
        self._on_storing = on_storing
        self._on_over = on_over
        self.uploads = ResultUploads(results, group, self._on_uploaded)
        self.on_output = publisher.add_output
        self.on_publish = publisher.publish_event
        self.on_request = managers.forward
        self.on_fetch = self.uploads.fetch
        self.on_unbegun = on_unbegun

    def on_result(self, assignment: Assignment, then: int, payload: bytes) -> None:
        """Publish the result of a node; called by runners."""
        outcome = assignment.decided_outcome
        # A task that succeeded before the order to stop reached it has succeeded.
        if outcome is not None:
            result = decode_result(payload)
            if result.outcome not in _KEPT_OUTCOMES:
                found = outcome.stopped_at(result.error)
                payload = assignment.encode_result(self._worker, found)
        self._publisher.publish_result(assignment, payload)
        self._on_node_over(assignment, then)

    def on_large_result(
        self, assignment: Assignment, payload: bytes, objects: StoredObjects
    ) -> None:
        """Store what is large of a node's result, then publish it; called by runners."""
        self.uploads.start(assignment, payload, objects)
        self._on_storing(assignment)

    def end(self, assignment: Assignment, outcome: AttemptOutcome) -> None:
        """Publish a result in the runner's place."""
        payload = assignment.encode_result(self._worker, outcome)
        self._publisher.publish_result(assignment, payload)
        self._on_over(assignment)

    def _on_uploaded(self, assignment: Assignment, payload: bytes, error: str | None) -> None:
        if error is not None:
            failure = TaskError(type="ResultStoreUnavailable", message=error)
            self.end(assignment, AttemptOutcome(Outcome.FAILED, failure))
            return
        self._publisher.publish_result(assignment, payload)
        self._on_over(assignment)
