"""Filters of runs in requests: in a query string, and in the body of an action on many runs."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from msgspec import Meta, Struct

from pubsubflow.api.auth.scopes import check_dag
from pubsubflow.api.http.pagination import Cursor
from pubsubflow.api.http.problems import BadRequest
from pubsubflow.api.http.requests import Limit, to_utc
from pubsubflow.api.http.shown import rights_of_request
from pubsubflow.model.auth import Role
from pubsubflow.model.runs.filters import RunFilter, TaskFilter
from pubsubflow.model.runs.states import RunState, TaskState

Text = Annotated[str, Meta(min_length=1, max_length=512)]
Tag = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^\S(.*\S)?$")]
Moment = Annotated[datetime, Meta(tz=True)]
Several = Meta(max_length=50)


class RunsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of the list of runs; lists are given by repetition.

    Attributes:
        dag: Only runs of this DAG.
        state: Only runs that are in one of these states now.
        kind: Only runs of one of these kinds, such as `manual`, `dataset` or `cron`.
        tag: Only runs that have all of these tags, or whose DAG has them.
        since, until: Bounds of the time at which they were created; `until` is exclusive.
        partition: Only runs of this partition.
        param: Only runs with these params, each as `name=value`.
        backfill: Only runs that this backfill has made.
    """

    dag: str | None = None
    state: Annotated[list[RunState], Several] = []
    kind: Annotated[list[Text], Several] = []
    tag: Annotated[list[Tag], Several] = []
    since: Moment | None = None
    until: Moment | None = None
    partition: Text | None = None
    param: Annotated[list[Text], Several] = []
    backfill: UUID | None = None
    limit: Limit = 50
    after: Cursor | None = None


class RunSelection(Struct, frozen=True, forbid_unknown_fields=True):
    """A filter of runs in the body of a request; its fields are those of the list's query string.

    Attributes:
        dag: Only runs of this DAG.
        state: Only runs that are in one of these states now.
        kind: Only runs of one of these kinds.
        tag: Only runs that have all of these tags, or whose DAG has them.
        since, until: Bounds of the time at which they were created; `until` is exclusive.
        partition: Only runs of this partition.
        param: Only runs with these params, each as `name=value`.
        backfill: Only runs that this backfill has made.
    """

    dag: Text | None = None
    state: Annotated[list[RunState], Several] = []
    kind: Annotated[list[Text], Several] = []
    tag: Annotated[list[Tag], Several] = []
    since: Moment | None = None
    until: Moment | None = None
    partition: Text | None = None
    param: Annotated[list[Text], Several] = []
    backfill: UUID | None = None


class TasksOfRunsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of the list of tasks of many runs; lists are given by repetition.

    Attributes:
        dag: Only tasks of this DAG.
        task: Only instances of tasks with one of these ids.
        state: Only those that are in one of these states now.
        run_state: Only those of runs that are in one of these states now.
        kind: Only those of runs of one of these kinds.
        tag: Only those of runs that have all of these tags, or whose DAG has them.
        since, until: Bounds of the time at which their runs were created; `until` is exclusive.
        partition: Only those of runs of this partition.
        param: Only those of runs with these params, each as `name=value`.
        backfill: Only those of runs that this backfill has made.
    """

    dag: str | None = None
    task: Annotated[list[Text], Several] = []
    state: Annotated[list[TaskState], Several] = []
    run_state: Annotated[list[RunState], Several] = []
    kind: Annotated[list[Text], Several] = []
    tag: Annotated[list[Tag], Several] = []
    since: Moment | None = None
    until: Moment | None = None
    partition: Text | None = None
    param: Annotated[list[Text], Several] = []
    backfill: UUID | None = None
    limit: Limit = 50
    after: Cursor | None = None


class TasksOfRunsSelection(Struct, frozen=True, forbid_unknown_fields=True):
    """A filter of tasks in the body of a request; its fields are those of the list's query string.

    Attributes:
        dag: Only tasks of this DAG.
        task: Only instances of tasks with one of these ids.
        state: Only those that are in one of these states now.
        run_state: Only those of runs that are in one of these states now.
        kind: Only those of runs of one of these kinds.
        tag: Only those of runs that have all of these tags, or whose DAG has them.
        since, until: Bounds of the time at which their runs were created; `until` is exclusive.
        partition: Only those of runs of this partition.
        param: Only those of runs with these params, each as `name=value`.
        backfill: Only those of runs that this backfill has made.
    """

    dag: Text | None = None
    task: Annotated[list[Text], Several] = []
    state: Annotated[list[TaskState], Several] = []
    run_state: Annotated[list[RunState], Several] = []
    kind: Annotated[list[Text], Several] = []
    tag: Annotated[list[Tag], Several] = []
    since: Moment | None = None
    until: Moment | None = None
    partition: Text | None = None
    param: Annotated[list[Text], Several] = []
    backfill: UUID | None = None


def task_filter_of(
    given: TasksOfRunsQuery | TasksOfRunsSelection, role: Role = Role.VIEWER
) -> TaskFilter:
    """Return the filter of tasks that a request gives; see `filter_of`.

    Raises:
        BadRequest: A param has no `=`, a moment is out of range, or the role on the DAG is not
            enough.
        NotFound: The DAG may not be seen.
    """
    runs = RunSelection(
        dag=given.dag,
        state=given.run_state,
        kind=given.kind,
        tag=given.tag,
        since=given.since,
        until=given.until,
        partition=given.partition,
        param=given.param,
        backfill=given.backfill,
    )
    return TaskFilter(filter_of(runs, role), tuple(given.task), tuple(given.state))


def filter_of(given: RunsQuery | RunSelection, role: Role = Role.VIEWER) -> RunFilter:
    """Return the filter that a request gives, of runs of the DAGs on which it has a role.

    Raises:
        BadRequest: A param has no `=`, a moment is out of range, or the role on the DAG is not
            enough.
        NotFound: The DAG may not be seen.
    """
    rights = rights_of_request()
    if given.dag is not None:
        check_dag(rights, given.dag, role)
    among = None if rights is None or given.dag is not None else rights.dags_with(role)
    params: dict[str, str] = {}
    for pair in given.param:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise BadRequest(
                f"param takes name=value, for example day=2026-11-20, not {pair!r}",
                status=400,
                field="param",
            )
        params[name] = value
    return RunFilter(
        given.dag,
        tuple(given.state),
        tuple(given.kind),
        tuple(given.tag),
        to_utc(given.since, field="since", status=400),
        to_utc(given.until, field="until", status=400),
        given.partition,
        params,
        given.backfill,
        None if among is None else tuple(among),
    )
