"""Questions about runs and tasks, also those of other DAGs."""

from collections import defaultdict
from typing import Any

from airflow.sdk.api.datamodels._generated import DagRun, PreviousTIResponse
from airflow.sdk.exceptions import ErrorType
from airflow.sdk.execution_time import comms as messages

from pubsubflow.airflow.inside.questions.handling import Handlers, absent, answers, fitting
from pubsubflow.airflow.protocol import RUN_TYPES

_ENDED_OTHERWISE = {"cancelled": "failed"}


class RunQuestions(Handlers):
    """Answers questions about runs and tasks."""

    @answers("GetDRCount")
    def get_dr_count(self, msg: Any) -> Any:
        """Answer how many runs there are."""
        return messages.DRCount(count=len(self._runs(msg, _of_runs(msg.states))))

    @answers("GetDagRunState")
    def get_dag_run_state(self, msg: Any) -> Any:
        """Answer with the state of a run."""
        found = self.find_run(msg)
        if found is None:
            return _no_run(msg)
        return messages.DagRunStateResult(state=_state(found["state"]))

    @answers("GetDagRun")
    def get_dag_run(self, msg: Any) -> Any:
        """Answer with a run."""
        found = self.find_run(msg)
        if found is None:
            return _no_run(msg)
        return fitting(messages.DagRunResult, **_fields(found))

    @answers("GetPreviousDagRun")
    def get_previous_dag_run(self, msg: Any) -> Any:
        """Answer with the last run before a date."""
        found = self.fact("run_before", dag_id=msg.dag_id, before=msg.logical_date, state=msg.state)
        run = None if found is None else fitting(DagRun, **_fields(found))
        return messages.PreviousDagRunResult(dag_run=run)

    @answers("GetPreviousTI")
    def get_previous_ti(self, msg: Any) -> Any:
        """Answer with the last instance of a task before a date."""
        state = getattr(msg.state, "value", msg.state)
        found = self.fact(
            "task_before",
            dag_id=msg.dag_id,
            task_id=msg.task_id,
            before=msg.logical_date,
            map_index=msg.map_index,
            state=None if state is None else str(state),
        )
        return messages.PreviousTIResult(task_instance=None if found is None else _instance(found))

    @answers("GetTICount")
    def get_ti_count(self, msg: Any) -> Any:
        """Answer how many instances of tasks there are."""
        return messages.TICount(count=self.count_tasks(msg))

    @answers("GetTaskStates")
    def get_task_states(self, msg: Any) -> Any:
        """Answer with the states of tasks: run → task, with its map index → state."""
        states: dict[str, dict[str, Any]] = defaultdict(dict)
        for task in self._tasks(msg):
            index = task["map_index"]
            name = task["task_id"] if index < 0 else f"{task['task_id']}_{index}"
            states[_known_as(task["run"], msg.run_ids)][name] = task["state"]
        return messages.TaskStatesResult(task_states=dict(states))

    @answers("GetTaskBreadcrumbs")
    def get_task_breadcrumbs(self, msg: Any) -> Any:
        """Answer with the tasks of a run that have ended, in the order of their ends."""
        wanted = {"dag_id": msg.dag_id, "run_ids": [msg.run_id]}
        ended = [each for each in self.fact("tasks", runs=wanted) or () if each["ended_at"]]
        crumbs = [
            {
                "task_id": each["task_id"],
                "map_index": each["map_index"],
                "state": each["state"],
                "operator": None,
                "duration": _seconds(each),
            }
            for each in sorted(ended, key=lambda each: each["ended_at"])
        ]
        return messages.TaskBreadcrumbsResult(breadcrumbs=crumbs)

    @answers("GetDag")
    def get_dag(self, msg: Any) -> Any:
        """Answer with what is known of a DAG."""
        found = self.fact("dag", dag_id=msg.dag_id)
        if found is None:
            kind = getattr(ErrorType, "DAG_NOT_FOUND", ErrorType.GENERIC_ERROR)
            return absent(kind, dag_id=msg.dag_id)
        return messages.DagResult(
            dag_id=found["dag_id"],
            is_paused=found["paused"],
            bundle_name=None,
            bundle_version=None,
            relative_fileloc=found["file"],
            owners=found["owner"],
            tags=list(found["tags"]),
            next_dagrun=found["next_run"],
        )

    def count_tasks(self, msg: Any) -> int:
        """Return how many instances of tasks there are."""
        found = self._tasks(msg)
        if msg.states is None:
            return len(found)
        wanted = {str(getattr(each, "value", each)) for each in msg.states}
        return sum(str(task["state"]) in wanted for task in found)

    def _tasks(self, msg: Any) -> list[dict[str, Any]]:
        runs = {
            "dag_id": msg.dag_id,
            "logical_dates": msg.logical_dates,
            "run_ids": msg.run_ids,
        }
        found = self.fact(
            "tasks",
            runs=runs,
            task_ids=msg.task_ids,
            group=msg.task_group_id,
            map_index=msg.map_index,
        )
        return list(found or ())

    def _runs(self, msg: Any, states: list[str] | None) -> list[dict[str, Any]]:
        found = self.fact(
            "runs",
            dag_id=msg.dag_id,
            logical_dates=msg.logical_dates,
            run_ids=msg.run_ids,
            states=states,
        )
        return list(found or ())

    def find_run(self, msg: Any) -> dict[str, Any] | None:
        """Return the run that a message names; None if there is none."""
        found = self.fact("runs", dag_id=msg.dag_id, run_ids=[msg.run_id]) or ()
        return next(iter(found), None)


def _no_run(msg: Any) -> Any:
    kind = getattr(ErrorType, "DAG_RUN_NOT_FOUND", ErrorType.GENERIC_ERROR)
    return absent(kind, message=f"DAG {msg.dag_id!r} has no run {msg.run_id!r}")


def _of_runs(states: Any) -> list[str] | None:
    """Return the states that stand for Airflow's: a run that was cancelled has failed there."""
    if states is None:
        return None
    named = [str(getattr(each, "value", each)) for each in states]
    return [*named, *(ours for ours, theirs in _ENDED_OTHERWISE.items() if theirs in named)]


def _state(state: str) -> str:
    return _ENDED_OTHERWISE.get(state, state)


def _fields(run: dict[str, Any]) -> dict[str, Any]:
    """Return a run in the fields of Airflow's."""
    date, tick = run["logical_date"], run["tick"]
    return {
        "dag_id": run["dag_id"],
        "run_id": run["run_id"],
        "logical_date": date,
        "data_interval_start": date,
        "data_interval_end": tick,
        "run_after": tick or run["created_at"],
        "start_date": run["started_at"] or run["created_at"],
        "end_date": run["ended_at"],
        "run_type": RUN_TYPES.get(run["kind"], "manual"),
        "state": _state(run["state"]),
        "conf": run["params"],
        "consumed_asset_events": [],
        "partition_key": run["partition"],
    }


def _instance(task: dict[str, Any]) -> Any:
    run = task["run"]
    return PreviousTIResponse(
        task_id=task["task_id"],
        dag_id=run["dag_id"],
        run_id=run["run_id"],
        logical_date=run["logical_date"],
        start_date=task["started_at"],
        end_date=task["ended_at"],
        state=task["state"],
        try_number=task["attempt"],
        map_index=task["map_index"],
        duration=_seconds(task),
    )


def _seconds(task: dict[str, Any]) -> float | None:
    if task["started_at"] is None or task["ended_at"] is None:
        return None
    return float((task["ended_at"] - task["started_at"]).total_seconds())


def _known_as(run: dict[str, Any], named: Any) -> str:
    """Return the name by which a question knows a run: a key chosen for it, or its id."""
    return str(run["run_key"] if run["run_key"] in (named or ()) else run["run_id"])
