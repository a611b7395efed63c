"""Operators on other runs: start one, or wait for the end of one."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from pubsubflow.authoring.runtime.context import Context
from pubsubflow.authoring.source_location import definition_error
from pubsubflow.authoring.tasks.operators import Operator
from pubsubflow.errors import PubsubflowError, TaskSkipped
from pubsubflow.model.triggers import RunEnded

_SUCCESS = "success"


class OtherRunFailed(PubsubflowError):  # noqa: N818 - the other run's end
    """Another run, or its task, did not end as it must.

    Args:
        what: The run or task.
        state: How it ended.
        reason: Its error, if it has one.
    """

    def __init__(self, what: str, state: str, reason: str | None = None) -> None:
        super().__init__(f"{what} ended as {state}{f': {reason}' if reason else ''}")
        self.state = state


class TriggerDagRunOperator(Operator):
    """Starts a run of a DAG; the result is its id.

    However often the task runs again, an attempt starts one run. A further attempt starts another
    one if that has failed.

    Args:
        dag_id: The DAG, also under its old name `trigger_dag_id`.
        params: Of the run, also under their old name `conf`.
        logical_time: Of the run.
        partition: Of the run.
        run_key: Identifies the run: if the DAG has one of that key, it is not started again.
        wait: Whether to wait until it has ended, also under its old name `wait_for_completion`;
            the task holds no slot then.
        allowed_states: How it may end.
    """

    template_fields = ("dag_id", "params", "logical_time", "partition", "run_key")

    def __init__(
        self,
        *,
        dag_id: str | None = None,
        trigger_dag_id: str | None = None,
        params: Mapping[str, Any] | None = None,
        conf: Mapping[str, Any] | None = None,
        logical_time: datetime | str | None = None,
        partition: str | None = None,
        run_key: str | None = None,
        wait: bool = False,
        wait_for_completion: bool = False,
        allowed_states: tuple[str, ...] = (_SUCCESS,),
        **kwargs: Any,
    ) -> None:
        target = dag_id or trigger_dag_id
        if target is None:
            raise definition_error("name the DAG: dag_id=", task_id=kwargs.get("task_id"))
        self.dag_id = target
        self.params = dict(params or conf or {})
        self.logical_time, self.partition, self.run_key = logical_time, partition, run_key
        self.wait = wait or wait_for_completion
        self.allowed_states = tuple(allowed_states)
        super().__init__(**kwargs)

    async def execute(self, ctx: Context) -> str:
        """Start the run, and perhaps wait for its end."""
        number = 0
        while True:
            run_id: str = await ctx.step(f"start {number}", self._start, ctx)
            if not self.wait:
                break
            ended = (await ctx.wait(RunEnded(run_id=run_id), name=f"run of {self.dag_id}")).payload
            if ended["state"] in self.allowed_states:
                break
            # What an earlier attempt has seen fail was its failure; this one starts a run anew.
            if await ctx.step(f"failed {number}", _attempt, ctx) == ctx.attempt or self.run_key:
                what = f"run {run_id} of {self.dag_id}"
                raise OtherRunFailed(what, ended["state"], ended["error"])
            number += 1
        return run_id

    async def _start(self, ctx: Context) -> str:
        moment = self.logical_time
        run_id = await ctx.start_run(
            self.dag_id,
            params=self.params,
            logical_time=datetime.fromisoformat(moment) if isinstance(moment, str) else moment,
            partition=self.partition,
            run_key=self.run_key,
        )
        ctx.log.info("run.started", run_id=run_id, dag_id=self.dag_id)
        return run_id


class ExternalTaskSensor(Operator):
    """Waits until a run of another DAG, or a task of it, has ended; it holds no slot.

    Without a task's `execution_delta` or `logical_time`, it waits for the run of the same logical
    time, or for a run of the same partition; without either, for the next run.

    Args:
        external_dag_id: The other DAG.
        external_task_id: Its task; the run as a whole if left out.
        execution_delta: How much earlier the other run's logical time is.
        execution_date_fn: Gets this run's logical time, and returns the other's.
        allowed_states: End states that succeed.
        skipped_states: End states that skip this task.
        since: Of runs without a logical time: only those made that long before this one, or later.
    """

    template_fields = ("external_dag_id", "external_task_id")

    def __init__(
        self,
        *,
        external_dag_id: str,
        external_task_id: str | None = None,
        execution_delta: timedelta | None = None,
        execution_date_fn: Callable[[datetime], datetime] | None = None,
        allowed_states: tuple[str, ...] = (_SUCCESS,),
        skipped_states: tuple[str, ...] = (),
        since: timedelta = timedelta(0),
        **kwargs: Any,
    ) -> None:
        if execution_delta is not None and execution_date_fn is not None:
            raise definition_error(
                "give execution_delta= or execution_date_fn=, not both",
                task_id=kwargs.get("task_id"),
            )
        self.external_dag_id, self.external_task_id = external_dag_id, external_task_id
        self.execution_delta, self.execution_date_fn = execution_delta, execution_date_fn
        self.allowed_states, self.skipped_states = tuple(allowed_states), tuple(skipped_states)
        self.since = since
        super().__init__(**kwargs)

    async def execute(self, ctx: Context) -> dict[str, Any]:
        """Wait for the other run."""
        number = 0
        while True:
            event = await ctx.wait(self._wanted(ctx), name=f"{self.external_dag_id} {number}")
            ended: dict[str, Any] = event.payload
            if ended["state"] in self.allowed_states:
                return ended
            if ended["state"] in self.skipped_states:
                raise TaskSkipped(f"{self._what(ended)} ended as {ended['state']}")
            # A further attempt looks again: the other run may have been cleared meanwhile.
            if await ctx.step(f"failed {number}", _attempt, ctx) == ctx.attempt:
                raise OtherRunFailed(self._what(ended), ended["state"], ended["error"])
            number += 1

    def _wanted(self, ctx: Context) -> RunEnded:
        moment = ctx.run.logical_time
        if moment is not None and self.execution_date_fn is not None:
            moment = self.execution_date_fn(moment)
        elif moment is not None and self.execution_delta is not None:
            moment -= self.execution_delta
        return RunEnded(
            dag_id=self.external_dag_id,
            task_id=self.external_task_id,
            logical_time=moment,
            partition=None if moment is not None else ctx.run.partition,
            since=None if moment is not None else ctx.run.created_at - self.since,
        )

    def _what(self, ended: Mapping[str, Any]) -> str:
        run = f"run {ended['run_id']} of {self.external_dag_id}"
        return f"task {self.external_task_id!r} in {run}" if self.external_task_id else run


async def _attempt(ctx: Context) -> int:
    return ctx.attempt
