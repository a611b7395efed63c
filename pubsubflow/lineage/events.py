"""OpenLineage events of a run, made from its stored facts alone.

The same run gives the same events, with the same ids and times, however often they are made.
"""

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID, uuid5

from pubsubflow.lineage.naming import dataset_name
from pubsubflow.lineage.openlineage import (
    DatasetName,
    DocumentationJobFacet,
    ErrorMessageRunFacet,
    EventType,
    JobDependenciesRunFacet,
    JobDependency,
    JobFacets,
    JobLink,
    JobTypeJobFacet,
    NominalTimeRunFacet,
    OpenLineageJob,
    OpenLineageRun,
    Owner,
    OwnershipJobFacet,
    ParentRunFacet,
    Root,
    RunEvent,
    RunFacets,
    RunLink,
    Tag,
    TagsJobFacet,
    TagsRunFacet,
)
from pubsubflow.model.lineage import AttemptLineage, RunLineage
from pubsubflow.model.runs.states import RunState, TaskState
from pubsubflow.model.spec import TaskSpec
from pubsubflow.model.wire.messages import NOT_MAPPED

_SOURCE = "PUBSUBFLOW"
_RUN_ENDS = {
    RunState.SUCCESS: EventType.COMPLETE,
    RunState.FAILED: EventType.FAIL,
    RunState.CANCELLED: EventType.ABORT,
}
_TASK_ENDS = {
    TaskState.SUCCESS: EventType.COMPLETE,
    TaskState.SKIPPED: EventType.COMPLETE,
    TaskState.FAILED: EventType.FAIL,
}
"""Any other state, as of a cancelled task or one whose upstream failed, is ABORT."""


def attempt_id(run_id: UUID, task_id: str, map_index: int, attempt: int) -> UUID:
    """Return the run id of one attempt of a task instance; always the same for the same one."""
    return uuid5(run_id, f"{task_id}/{map_index}/{attempt}")


def start_event(run: RunLineage, namespace: str) -> RunEvent:
    """Return the event of a run's start.

    Args:
        run: A run that has started, or has ended.
        namespace: The namespace of all jobs.
    """
    return _EventBuilder(run, namespace).run_event(EventType.START)


def run_events(run: RunLineage, namespace: str) -> list[RunEvent]:
    """Return all events of a run that has ended, in order: its start, its tasks, its end.

    Args:
        run: A run that has ended.
        namespace: The namespace of all jobs.
    """
    builder = _EventBuilder(run, namespace)
    tasks = [event for attempt in run.attempts for event in builder.attempt_events(attempt)]
    # Attempts overlap, and consumers expect events in the order of their times. The sort is
    # stable: a START and its end at the same moment keep their order.
    tasks.sort(key=lambda event: event.event_time)
    return [
        builder.run_event(EventType.START),
        *tasks,
        builder.run_event(_RUN_ENDS[run.state]),
    ]


class _EventBuilder:
    """Builds the events of one run."""

    def __init__(self, run: RunLineage, namespace: str) -> None:
        self._run = run
        self._namespace = namespace
        self._consumed = _datasets(run.consumed)
        self._nominal = (
            None
            if run.logical_time is None
            else NominalTimeRunFacet(nominal_start_time=run.logical_time)
        )
        self._job = JobLink(namespace=namespace, name=run.spec.dag_id)
        self._ownership = (
            OwnershipJobFacet(owners=[Owner(name=run.spec.owner)]) if run.spec.owner else None
        )
        self._tags = (
            TagsJobFacet(tags=[_tag(tag, "true") for tag in run.spec.tags])
            if run.spec.tags
            else None
        )

    def run_event(self, kind: EventType) -> RunEvent:
        """Return the start or the end of the DAG's run."""
        run = self._run
        start = kind is EventType.START
        emitted = [uri for attempt in run.attempts for uri in attempt.emitted]
        facets = RunFacets(
            nominal_time=self._nominal,
            job_dependencies=self._dependencies(),
            error_message=None
            if start or not run.error
            else ErrorMessageRunFacet(message=run.error),
        )
        return RunEvent(
            event_type=kind,
            event_time=_started(run) if start else run.ended_at or _started(run),
            run=OpenLineageRun(run_id=run.run_id, facets=facets),
            job=OpenLineageJob(
                namespace=self._namespace,
                name=run.spec.dag_id,
                facets=self._job_facets("DAG", run.spec.description),
            ),
            inputs=self._consumed,
            outputs=() if start else _datasets(emitted),
        )

    def attempt_events(self, attempt: AttemptLineage) -> tuple[RunEvent, RunEvent]:
        """Return the start and the end of one attempt."""
        task = self._run.spec.tasks[attempt.node]
        # An attempt that never started has no start, and the clocks of two workers may disagree.
        started = min(attempt.started_at or attempt.ended_at, attempt.ended_at)
        end = _TASK_ENDS.get(attempt.state, EventType.ABORT)
        return (
            self._attempt_event(EventType.START, started, task, attempt),
            self._attempt_event(end, attempt.ended_at, task, attempt),
        )

    def _attempt_event(
        self, kind: EventType, time: datetime, task: TaskSpec, attempt: AttemptLineage
    ) -> RunEvent:
        start = kind is EventType.START
        run_id = attempt_id(self._run.run_id, task.task_id, attempt.map_index, attempt.attempt)
        facets = RunFacets(
            parent=self._parent(),
            nominal_time=self._nominal,
            error_message=None if start else _error(attempt),
            tags=TagsRunFacet(tags=_attempt_tags(attempt, ended=not start)),
        )
        return RunEvent(
            event_type=kind,
            event_time=time,
            run=OpenLineageRun(run_id=run_id, facets=facets),
            job=OpenLineageJob(
                namespace=self._namespace,
                name=f"{self._run.spec.dag_id}.{task.task_id}",
                facets=self._job_facets("TASK", task.doc),
            ),
            inputs=self._inputs(task),
            outputs=() if start else _datasets(attempt.emitted),
        )

    def _inputs(self, task: TaskSpec) -> tuple[DatasetName, ...]:
        """Return a task's inlets; of tasks without upstream also what the run consumed."""
        consumed = () if task.upstream else self._run.consumed
        return _datasets((*task.inlets, *consumed))

    def _parent(self) -> ParentRunFacet:
        run = RunLink(run_id=self._run.run_id)
        return ParentRunFacet(run=run, job=self._job, root=Root(run=run, job=self._job))

    def _dependencies(self) -> JobDependenciesRunFacet | None:
        upstream = [
            JobDependency(
                job=JobLink(namespace=self._namespace, name=parent.dag_id),
                run=RunLink(run_id=parent.run_id),
            )
            for parent in self._run.parents
        ]
        return JobDependenciesRunFacet(upstream=upstream) if upstream else None

    def _job_facets(self, kind: str, doc: str | None) -> JobFacets:
        return JobFacets(
            job_type=JobTypeJobFacet(job_type=kind),
            ownership=self._ownership,
            documentation=DocumentationJobFacet(description=doc) if doc else None,
            tags=self._tags,
        )


def _started(run: RunLineage) -> datetime:
    """Return when a run started; one that never did counts as started at its end."""
    return run.started_at or run.ended_at or run.created_at


def _datasets(uris: Iterable[str]) -> tuple[DatasetName, ...]:
    return tuple(dataset_name(uri) for uri in dict.fromkeys(uris))


def _tag(key: str, value: str) -> Tag:
    return Tag(key=key, value=value, source=_SOURCE)


def _attempt_tags(attempt: AttemptLineage, *, ended: bool) -> list[Tag]:
    tags = [_tag("attempt", str(attempt.attempt))]
    if attempt.map_index != NOT_MAPPED:
        tags.append(_tag("map_index", str(attempt.map_index)))
    if ended:
        tags.append(_tag("state", attempt.state))
    return tags


def _error(attempt: AttemptLineage) -> ErrorMessageRunFacet | None:
    error = attempt.error
    if error is None:
        return None
    message = f"{error.type}: {error.message}" if error.message else error.type
    return ErrorMessageRunFacet(message=message, stack_trace=error.traceback)
