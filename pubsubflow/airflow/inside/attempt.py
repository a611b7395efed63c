"""One attempt of one task, run by the task runner of Airflow's SDK in this process."""

import traceback
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pendulum
import structlog
from airflow.sdk.api.datamodels._generated import DagRun, TaskInstanceState, TIRunContext
from airflow.sdk.execution_time import task_runner

from pubsubflow.airflow.inside.comms import RETURN_VALUE, AttemptQuestions
from pubsubflow.airflow.inside.deferral import deferral_at_start, deferral_of, resumed_with
from pubsubflow.airflow.inside.legacy.context import add_old_names
from pubsubflow.airflow.inside.loading.core_timetables import core_timetable
from pubsubflow.airflow.inside.loading.deadlines import call_deadline
from pubsubflow.airflow.inside.loading.partitions import makes_partitions, partition_of
from pubsubflow.airflow.inside.loading.schedules import is_computed
from pubsubflow.airflow.inside.loading.ticks import interval_at
from pubsubflow.airflow.inside.questions.handling import fitting
from pubsubflow.airflow.protocol import AirflowOrder, AttemptReport, Deferral, EmittedAsset

_MAX_TRACEBACK = 20_000
_SHOWN_CHARACTERS = 4_096


class _Bundle:
    """Stands for the DAG bundle; its name, version and path are all that is read."""

    name, version = "pubsubflow", None

    def __init__(self, path: Path) -> None:
        self.path = path


def run_attempt(
    dag: Any, order: AirflowOrder, questions: AttemptQuestions, *, legacy: bool
) -> AttemptReport:
    """Run an attempt to its end, and return that; the process is to end after it.

    Args:
        dag: The DAG.
        order: The attempt.
        questions: Answers the attempt, and keeps what it says.
        legacy: Whether the context has the names of older versions, too.
    """
    log = structlog.get_logger("task").bind()
    _answer_from(questions, order, dag)
    ti = _task_instance(dag, order)
    context = _context_of(ti, legacy=legacy)
    started = _started_by_trigger(ti, order, context)
    if started is not None:
        return AttemptReport("waiting", deferral=started)
    state, _, error = task_runner.run(ti, context, log)
    context["exception"] = error
    task_runner.finalize(ti, state, context, log, error)
    return _end(questions, error)


def _started_by_trigger(ti: Any, order: AirflowOrder, context: Any) -> Deferral | None:
    """Return what a task waits for before any of its code runs, if it is made so."""
    task = ti.task
    if order.next_method is not None or order.looks or not task.start_from_trigger:
        return None
    given = task.start_trigger_args
    if getattr(task, "is_mapped", False):
        given = task.expand_start_trigger_args(context=context)
    return None if given is None else deferral_at_start(given)


def call_callbacks(
    dag: Any, order: AirflowOrder, questions: AttemptQuestions, *, legacy: bool
) -> AttemptReport:
    """Call what a DAG has for the end of a run, with the context of one of its tasks, as Airflow.

    Args:
        dag: The DAG.
        order: Says what is called, why, and of which task the context is.
        questions: Answers it.
        legacy: Whether the context has the names of older versions, too.
    """
    _answer_from(questions, order, dag)
    context = _context_of(_task_instance(dag, order), legacy=legacy)
    context["reason"] = order.reason
    failure: Exception | None = None
    for call in _called(dag, order.callback):
        try:
            call(context)
        except Exception as error:  # noqa: BLE001 - the others are called, too
            traceback.print_exc()
            failure = failure or error
    if failure is None:
        return AttemptReport("success")
    return AttemptReport("failed", error_type=type(failure).__name__, error_message=str(failure))


def _called(dag: Any, callback: str) -> Sequence[Any]:
    """Return what is called with the context."""
    kind, _, number = callback.partition(":")
    if number:
        return (lambda context: call_deadline(dag, int(number), context),)
    given = getattr(dag, f"{kind}_callback")
    return given if isinstance(given, list | tuple) else (given,)


def _answer_from(questions: AttemptQuestions, order: AirflowOrder, dag: Any) -> None:
    questions.interval_of = partial(_interval_of, dag)
    questions.address = (order.dag_id, order.run_id, order.task_id, order.map_index)
    questions.first_look = order.first_look
    questions.partition = _partition_of(dag, order)[0]
    task_runner.SUPERVISOR_COMMS = questions


def _context_of(ti: Any, *, legacy: bool) -> Any:
    context = ti.get_template_context()
    if legacy:
        add_old_names(context)
    return context


def _task_instance(dag: Any, order: AirflowOrder) -> Any:
    next_method, next_kwargs = resumed_with(order)
    context = fitting(
        TIRunContext,
        dag_run=_run(dag, order),
        max_tries=order.max_tries,
        should_retry=order.attempt <= order.max_tries,
        next_method=next_method,
        next_kwargs=next_kwargs,
        task_reschedule_count=order.looks,
        xcom_keys_to_clear=[],
    )
    return task_runner.RuntimeTaskInstance.model_construct(
        id=uuid.UUID(order.ti_id),
        task_id=order.task_id,
        dag_id=order.dag_id,
        run_id=order.run_id,
        try_number=order.attempt,
        dag_version_id=uuid.UUID(int=0),
        map_index=order.map_index,
        queue="default",
        task=dag.task_dict[order.task_id],
        bundle_instance=_Bundle(Path(dag.fileloc or ".").parent),
        _ti_context_from_server=context,
        max_tries=order.max_tries,
        start_date=order.started_at,
        state=TaskInstanceState.RUNNING,
    )


def _run(dag: Any, order: AirflowOrder) -> Any:
    logical, start, end = _dates(dag, order)
    partition, date = _partition_of(dag, order)
    return fitting(
        DagRun,
        dag_id=order.dag_id,
        run_id=order.run_id,
        logical_date=logical,
        data_interval_start=start,
        data_interval_end=end,
        run_after=order.tick or order.run_after,
        start_date=order.run_after,
        end_date=None,
        run_type=order.run_type,
        state="running",
        conf=order.conf,
        consumed_asset_events=[
            {
                "asset": {"name": each.name, "uri": each.uri, "extra": {}},
                "extra": each.extra,
                "source_task_id": each.task_id,
                "source_dag_id": each.dag_id,
                "source_run_id": each.run_id,
                "source_map_index": -1 if each.run_id else None,
                "source_aliases": [{"name": each.alias}] if each.alias else [],
                "timestamp": each.time,
            }
            for each in order.events
        ],
        partition_key=partition,
        partition_date=date,
    )


def _partition_of(dag: Any, order: AirflowOrder) -> tuple[str | None, datetime | None]:
    tick = None if order.run_type == "manual" else order.tick
    return partition_of(dag.timetable, order.partition, tick)


def _dates(dag: Any, order: AirflowOrder) -> tuple[datetime | None, ...]:
    """Return logical date, and start and end of the data interval."""
    scheduled = order.tick is not None and order.run_type != "manual"
    if order.run_type == "asset_triggered" or (scheduled and makes_partitions(dag.timetable)):
        return None, None, None
    # A run by time has the beginning of its interval as its date, a manual one its own moment.
    if order.tick is not None and order.run_type != "manual":
        start, end = _interval_of(dag, order.tick)
        return start, start, end
    after = order.tick or order.run_after
    table = core_timetable(dag.timetable)
    interval = table.infer_manual_data_interval(run_after=_pendulum(after))
    return after, interval.start, interval.end


def _interval_of(dag: Any, tick: datetime) -> tuple[datetime | None, datetime | None]:
    """Return the data interval of the run that a tick makes."""
    if is_computed(dag.timetable):
        timed = getattr(dag.timetable, "timetable", dag.timetable)
        found = interval_at(timed, dag.start_date, tick)
        if found is not None:
            return found
    table = core_timetable(dag.timetable)
    interval = table.infer_manual_data_interval(run_after=_pendulum(tick))
    return interval.start, interval.end


def _pendulum(moment: datetime) -> Any:
    return pendulum.instance(moment.astimezone(UTC))


def _end(questions: AttemptQuestions, error: BaseException | None) -> AttemptReport:
    outcome = questions.outcome
    pushed = dict(questions.pushed)
    common: dict[str, Any] = {
        "value": pushed.pop(RETURN_VALUE, None),
        "pushed": pushed,
        "rendered": {name: _shown(each) for name, each in questions.rendered.items()},
        "map_name": questions.map_name,
        "length": questions.length,
    }
    if error is not None:
        common |= {
            "error_type": type(error).__name__,
            "error_message": str(error).strip() or type(error).__name__,
            "error_traceback": _traceback(error),
        }
    kind = type(outcome).__name__
    if kind == "SucceedTask":
        skipped = questions.skipped
        common |= {"skipped": None if skipped is None else tuple(skipped)}
        return AttemptReport("success", emitted=_emitted(outcome, questions.partition), **common)
    if kind in ("DeferTask", "RescheduleTask", "AwaitInputTask"):
        deferral = deferral_of(outcome, questions.question)
        return AttemptReport("waiting", deferral=deferral, **common)
    if kind == "RetryTask":
        delay = getattr(outcome, "retry_delay_seconds", None)
        return AttemptReport("retry", retry_after=delay, **common)
    state = str(getattr(getattr(outcome, "state", "failed"), "value", "failed"))
    return AttemptReport(state if state in ("skipped", "success") else "failed", **common)


def _emitted(outcome: Any, partition: str | None) -> tuple[EmittedAsset, ...]:
    """Return the events of a success: those without a partition have that of the run."""
    found = []
    for event in outcome.outlet_events or ():
        asset = event.get("dest_asset_key") or {}
        if asset.get("uri"):
            found.append(
                EmittedAsset(
                    asset["name"],
                    asset["uri"],
                    event.get("extra") or {},
                    event.get("partition_key") or partition,
                    event.get("source_alias_name") or "",
                )
            )
    if partition is not None:
        covered = {each.uri for each in found}
        found += [
            EmittedAsset(each.name or each.uri, each.uri or "", partition=partition)
            for each in outcome.task_outlets or ()
            if each.type != "AssetAlias" and each.uri not in covered
        ]
    return tuple(found)


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"


def _traceback(error: BaseException) -> str:
    """Return the traceback without the frames of Airflow's task runner above the user's."""
    frames = traceback.TracebackException.from_exception(error)
    own = [each for each in frames.stack if "/airflow/sdk/execution_time/" not in each.filename]
    frames.stack = traceback.StackSummary.from_list(own)
    text = "".join(frames.format())
    return text if len(text) <= _MAX_TRACEBACK else text[-_MAX_TRACEBACK:]
