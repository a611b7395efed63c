"""The host of a task in a runner: what its context requests goes to the managers."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Raw
from msgspec.structs import replace

from pubsubflow.authoring.bind import RunnableDag
from pubsubflow.model.connections import Connection
from pubsubflow.model.values.state import StateValue, decode_state_value
from pubsubflow.model.values.variables import Variable
from pubsubflow.model.wire.messages import EventInfo, PublishedEvent, TaskError
from pubsubflow.model.wire.outputs import PulledValues, decode_pulled
from pubsubflow.model.wire.stored_results import StoredInput, is_stored
from pubsubflow.model.wire.task_questions import TaskQuestion, decode_fact
from pubsubflow.model.wire.worker_requests import (
    Chunk,
    PreviousRun,
    PreviousSuccessRequest,
    PullRequest,
    StateRequest,
    decode_previous_run,
)
from pubsubflow.runner.exchanges.requests import (
    fetch_answer,
    fetch_connection,
    fetch_events,
    fetch_result,
    fetch_small,
    fetch_variable,
    publish_event,
    run_exchange,
)
from pubsubflow.runner.execution import TaskExecution
from pubsubflow.runner.failures import outcome_of
from pubsubflow.runner.protocol import RunnerRequest


class RunnerHost:
    """The part of a host that sync and async runners share.

    Args:
        execution: The task.
        dag: Its DAG.
        request: Sends a request and waits for the reply.
    """

    def __init__(
        self,
        execution: TaskExecution,
        dag: RunnableDag,
        request: Callable[[RunnerRequest], Chunk],
    ) -> None:
        self._execution = execution
        self._dag = dag
        self._request = request

    def fetch_result(self, node: int) -> bytes:
        """Fetch the result of another task of the run."""
        known = self._execution.chained_result(node)
        if known is not None:
            return known
        request = self._execution.result_request(self._dag, node)
        return run_exchange(fetch_result(request), self._request)

    def fetch_element(self, node: int, index: int) -> bytes:
        """Fetch one element of the result of another task of the run."""
        request = self._execution.result_request(self._dag, node, index)
        return run_exchange(fetch_result(request), self._request)

    def fetch_pulled(self, request: PullRequest) -> PulledValues:
        """Fetch what a task has left under a key."""
        known = self._execution.chained_outputs(self._dag, request)
        if known is not None:
            return known
        found = decode_pulled(run_exchange(fetch_result(request), self._request))
        if not any(is_stored(bytes(value)) for _, value, _ in found.values):
            return found
        values = ((index, self._load(value), whole) for index, value, whole in found.values)
        return replace(found, values=tuple(values))

    def _load(self, value: Raw) -> Raw:
        """Return an encoded value, from the result store if it is there."""
        return Raw(run_exchange(fetch_result(StoredInput(bytes(value))), self._request))

    def fetch_events(self) -> Sequence[EventInfo]:
        """Fetch the events that the run consumed."""
        return run_exchange(fetch_events(self._execution.message.run), self._request)

    def fetch_connection(self, name: str) -> Connection:
        """Fetch a connection, and redact its secrets in output and errors from now on."""
        exchange = fetch_connection(self._execution.connection_request(name))
        found = run_exchange(exchange, self._request)
        self._execution.redactor.add(found)
        return found

    def fetch_variable(self, name: str) -> Variable:
        """Fetch a variable, and redact a secret one in output and errors from now on."""
        exchange = fetch_variable(self._execution.variable_request(name))
        found = run_exchange(exchange, self._request)
        self._execution.redactor.add(found)
        return found

    def fetch_state(self, name: str) -> StateValue:
        """Fetch a value of the DAG's state."""
        request = StateRequest(self._execution.message.run, name)
        return decode_state_value(run_exchange(fetch_small(request), self._request))

    def fetch_previous_success(self) -> PreviousRun | None:
        """Fetch the last run before this one that has succeeded."""
        request = PreviousSuccessRequest(self._execution.message.run)
        found: PreviousRun | None = decode_previous_run(
            run_exchange(fetch_small(request), self._request)
        )
        return found

    def fetch_answer(self, question: TaskQuestion) -> Any:
        """Fetch the answer to a question of a task of Airflow's."""
        request = self._execution.question_request(question)
        return decode_fact(question, run_exchange(fetch_answer(request), self._request))

    def publish(self, event: PublishedEvent) -> None:
        """Publish an event and wait until it is stored; on a loop's thread all its tasks wait."""
        run_exchange(publish_event(event), self._request)

    def now(self) -> float:
        """Return the time in seconds since 1970."""
        return time.time()

    def describe(self, error: Exception) -> TaskError:
        """Return why a step failed."""
        return self._execution.redactor.error(outcome_of(error)[1])
