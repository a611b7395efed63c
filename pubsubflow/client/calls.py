"""Client methods for calls: a run is started, and its result is the answer."""

import time
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pubsubflow.client.transport import Transport, quoted
from pubsubflow.model.api.calls import CallAnswer
from pubsubflow.model.runs.states import RunState

_WAIT_SECONDS = 30.0


class CallApi:
    """Methods of the client for calls."""

    _server: Transport

    async def call(
        self,
        dag_id: str,
        *,
        params: Mapping[str, Any] | None = None,
        timeout_seconds: float = 30.0,
        logical_time: datetime | None = None,
        partition: str | None = None,
        run_key: str | None = None,
        cause: str | None = None,
    ) -> CallAnswer:
        """Start a run of a DAG with a result; return it, or the run's state when the time is over.

        Args:
            dag_id: The DAG; it names the task that returns the result by `DAG(result=…)`.
            params: Values in place of the DAG's defaults.
            timeout_seconds: How long to wait for the result.
            logical_time: The moment that the run is about; with a zone.
            partition: The partition that it is about.
            run_key: A second call with the same key gets the result of the same run.
            cause: Why it is called: one line for people.

        Raises:
            RequestFailed: The run has failed; `problem` has its id, the task and the error.
        """
        give_up = time.monotonic() + timeout_seconds
        body = {
            "params": params,
            "timeout": self._part(timeout_seconds),
            "logical_time": logical_time,
            "partition": partition,
            # Drawn here: a retry after a lost response gets the result of the first run.
            "run_key": run_key or f"call:{uuid.uuid4()}",
            "cause": cause or "called through the API",
        }
        path = f"/api/v1/dags/{quoted(dag_id)}/call"
        answer = await self._server.send("POST", path, body, CallAnswer, idempotent=True)
        if RunState(answer.state).final:
            return answer
        return await self.result(answer.run_id, timeout_seconds=give_up - time.monotonic())

    async def result(self, run_id: str, *, timeout_seconds: float = 0.0) -> CallAnswer:
        """Return the result of a run of a DAG that has one, or its state when the time is over.

        Raises:
            RequestFailed: The run has failed; `problem` has its id, the task and the error.
        """
        give_up = time.monotonic() + timeout_seconds
        path = f"/api/v1/runs/{quoted(run_id)}/result"
        while True:
            left = give_up - time.monotonic()
            part = self._part(left)
            answer = await self._server.get(path, CallAnswer, {"timeout": f"{part:.3f}"})
            if RunState(answer.state).final or left <= part:
                return answer

    def _part(self, seconds: float) -> float:
        """Return how long one request waits: each must end before the timeout of its own."""
        return max(0.0, min(seconds, _WAIT_SECONDS, self._server.timeout_seconds / 2))
