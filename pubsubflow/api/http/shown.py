"""Answers are cut down to what the principal of a request may see.

To a principal with a role on some DAGs and datasets every JSON answer goes through `shown`, which
says by the type of each value what remains of it. Of a type that is not named here nothing does:
a new route shows nothing until it is decided what.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from pubsubflow.errors import NotFound
from pubsubflow.model.api import (
    alerts,
    approvals,
    auth,
    backfills,
    bulk,
    calls,
    checks,
    datasets,
    explain,
    resources,
    server,
    state,
    triggers,
    versions,
    webhooks,
)
from pubsubflow.model.api.history import causality, output, timeline
from pubsubflow.model.api.overviews import graph as graphs
from pubsubflow.model.api.overviews import runs as overviews
from pubsubflow.model.auth import Rights
from pubsubflow.model.schedule.checks import CHECK_PREFIX
from pubsubflow.model.schedule.simulations import SimulationView

T = TypeVar("T")
_Rule = Callable[[Any, Rights], Any]
_RIGHTS: ContextVar[Rights | None] = ContextVar("rights", default=None)
ELSEWHERE = "task"
"""The source of an event that a task of a DAG emitted which one may not see."""

_HIDDEN_CAUSE = "started by a task of another DAG"


def limit_to(rights: Rights) -> None:
    """Show only what these rights allow to the end of the request, which has its own context."""
    _RIGHTS.set(rights)


def rights_of_request() -> Rights | None:
    """Return the rights of the request that is being answered; None if its role is enough."""
    return _RIGHTS.get()


def shown(value: object) -> object:
    """Return what the principal of this request may see of an answer.

    Raises:
        NotFound: Nothing of it.
    """
    rights = _RIGHTS.get()
    if rights is None or rights.sees_all:
        return value
    found = _cut(value, rights)
    if found is None and value is not None:
        raise NotFound("object", "of that name")
    return found


def shown_items(items: Sequence[T]) -> list[T]:
    """Return those of the items of a list that the principal of this request may see."""
    found: list[T] = shown(list(items))  # type: ignore[assignment] # a list remains a list
    return found


def _cut(value: Any, rights: Rights) -> Any:
    """Return what remains of a value; None for nothing."""
    if isinstance(value, list | tuple):
        return [cut for each in value if (cut := _cut(each, rights)) is not None]
    if not isinstance(value, Struct):
        return value
    # By the very type: a subclass with further fields needs a rule of its own.
    rule = RULES.get(type(value))
    return None if rule is None else rule(value, rights)


def _whole(value: Any, _rights: Rights) -> Any:
    """Show a value that is only answered to those who may see its DAG, or names none."""
    return value


def _by_dag(value: Any, rights: Rights) -> Any:
    return value if value.dag_id is not None and rights.sees_dag(value.dag_id) else None


def _by_check(value: Any, rights: Rights) -> Any:
    return value if rights.sees_dag(CHECK_PREFIX + value.check) else None


def _page(value: Any, rights: Rights) -> Any:
    return replace(value, items=_cut(value.items, rights))


def _dag_page(value: Any, rights: Rights) -> Any:
    # Files that cannot be imported may be of any DAG.
    return replace(value, items=_cut(value.items, rights), import_errors=[])


def _run(value: Any, rights: Rights) -> Any:
    return _with_cause(value, rights) if rights.sees_dag(value.dag_id) else None


def _with_cause(value: Any, rights: Rights) -> Any:
    """Show a run; of a task of another DAG that started it, only that there is one."""
    starter = explain.started_by(value)
    if starter is None or rights.sees_dag(starter.dag_id):
        return value
    return replace(value, cause=_HIDDEN_CAUSE)


def _held(value: Any) -> str | None:
    """Return that checks hold an event, and not which: they may be of other DAGs."""
    return None if value.held is None else "by a check"


def _bounded_event(value: Any, rights: Rights) -> Any:
    """Show an event without the task that emitted it, if that is of another DAG."""
    held = _held(value)
    if value.dag_id is None or rights.sees_dag(value.dag_id):
        return replace(value, held=held)
    without = dict.fromkeys(("run_id", "dag_id", "task_id", "map_index"))
    return replace(value, source=ELSEWHERE, held=held, **without)


def _event(value: Any, rights: Rights) -> Any:
    return _bounded_event(value, rights) if rights.sees_dataset(value.dataset) else None


def _event_with_outcomes(value: Any, rights: Rights) -> Any:
    found = _event(value, rights)
    return found and replace(found, outcomes=_cut(found.outcomes, rights))


def _held_event(value: Any, rights: Rights) -> Any:
    found = _event(value, rights)
    return found and replace(found, checks=_cut(found.checks, rights))


def _dataset(value: Any, rights: Rights) -> Any:
    if not rights.sees_dataset(value.dataset):
        return None
    consumers = [each for each in value.consumers if rights.sees_dag(each)]
    # Counts of what may be of other DAGs are not told.
    return replace(value, consumers=consumers, producer_count=0, check_count=0)


def _dataset_detail(value: Any, rights: Rights) -> Any:
    found = _dataset(value, rights)
    names = ("producers", "subscribers", "last_events", "checks")
    return found and replace(found, **{name: _cut(getattr(found, name), rights) for name in names})


def _explanation(value: Any, rights: Rights) -> Any:
    ancestry = [each for each in value.ancestry if rights.sees_dag(each)]
    return replace(value, runs=_cut(value.runs, rights), ancestry=ancestry)


def _explained_run(value: Any, rights: Rights) -> Any:
    run = _run(value.run, rights)
    # What its runs were given belongs to a DAG: also events of datasets that one does not see.
    events = [_bounded_event(each, rights) for each in value.events]
    starter = value.started_by and _by_dag(value.started_by, rights)
    return run and replace(value, run=run, events=events, started_by=starter)


def _trace(value: Any, rights: Rights) -> Any:
    """Show the own runs of a trace, and the events that they touch or whose dataset one sees.

    Counts are of what is shown: those of the whole would reveal the rest.
    """
    runs = {each.run_id: each for each in value.runs if rights.sees_dag(each.dag_id)}
    links = [each for each in value.consumed if each.run_id in runs]
    touched = {each.event_id for each in links}
    events = [
        _traced_event(each, rights, [runs[link.run_id].state for link in links if _of(link, each)])
        for each in value.events
        if each.event_id in touched or each.run_id in runs or rights.sees_dataset(each.dataset)
    ]
    started = Counter(each.started_by.run_id for each in runs.values() if each.started_by)
    own = [_traced_run(each, rights, started[each.run_id]) for each in runs.values()]
    return replace(value, runs=own, events=events, consumed=links)


def _of(link: causality.TraceLink, event: causality.TracedEvent) -> bool:
    return link.event_id == event.event_id


def _traced_run(value: Any, rights: Rights, started: int) -> Any:
    starter = value.started_by
    if starter is not None and not rights.sees_dag(starter.dag_id):
        value = replace(value, started_by=None, starter=None, cause=_HIDDEN_CAUSE)
    return replace(value, started=started)


def _traced_event(value: Any, rights: Rights, states: Sequence[str]) -> Any:
    if value.dag_id is not None and not rights.sees_dag(value.dag_id):
        value = replace(value, source=ELSEWHERE, run_id=None, dag_id=None, task=None)
    outcomes = []
    for each in value.outcomes:
        dags = [dag_id for dag_id in each.dags if rights.sees_dag(dag_id)]
        reason = each.reason if dags[:1] == each.dags[:1] else None
        if dags:
            outcomes.append(replace(each, dags=dags, count=len(dags), reason=reason))
    return replace(value, consumers=dict(Counter(states)), outcomes=outcomes, held=_held(value))


def _summary(value: Any, rights: Rights) -> Any:
    """Show the own runs; counts of all work are not of the DAGs that one sees."""
    names = ("failures", "longest", "stuck")
    return replace(value, work=[], **{name: _cut(getattr(value, name), rights) for name in names})


def _grid(value: Any, rights: Rights) -> Any:
    if not rights.sees_dag(value.dag_id):
        return None
    return replace(value, runs=[_with_cause(each, rights) for each in value.runs])


def _alert(value: Any, rights: Rights) -> Any:
    """Show an alert about a DAG or a check, or else about the freshness of a dataset."""
    if value.dag_id is not None:
        return _by_dag(value, rights)
    return value if rights.sees_dataset(value.dataset or "") else None


def _alert_detail(value: Any, rights: Rights) -> Any:
    found = _alert(value, rights)
    # What is called for a dataset is a function of a file, which is the operator's.
    return found if found is None or found.dag_id else replace(found, callbacks=[])


def _graph(value: Any, rights: Rights) -> Any:
    """Show what one sees around a dataset, as far as it hangs together without the rest.

    Sides and distances are of what is shown: those through the rest would reveal it.
    """
    seen = {
        at
        for at, node in enumerate(value.nodes)
        if (rights.sees_dag if node.kind == "dag" else rights.sees_dataset)(node.name)
    }
    edges = [edge for edge in value.edges if seen.issuperset(edge)]
    middle = next(at for at, node in enumerate(value.nodes) if node.name == value.dataset)
    if middle not in seen:
        return None
    steps = {at: -hops for at, hops in _hops(middle, [edge[::-1] for edge in edges]).items()}
    for at, hops in _hops(middle, edges).items():
        if at not in steps or hops < -steps[at]:
            steps[at] = hops
    place = {at: number for number, at in enumerate(sorted(steps))}
    return replace(
        value,
        nodes=[replace(value.nodes[at], step=_datasets_away(steps[at])) for at in place],
        edges=[(place[one], place[end]) for one, end in edges if one in place and end in place],
    )


def _hops(start: int, edges: Iterable[tuple[int, int]]) -> dict[int, int]:
    """Return how many edges away what follows a node is, itself among it."""
    after: dict[int, list[int]] = {}
    for one, end in edges:
        after.setdefault(one, []).append(end)
    hops, last = {start: 0}, [start]
    while last:
        last = [end for one in last for end in after.get(one, ()) if end not in hops]
        hops.update(dict.fromkeys(last, max(hops.values()) + 1))
    return hops


def _datasets_away(hops: int) -> int:
    # Datasets and DAGs alternate; a DAG counts with the dataset beyond it.
    return (hops + 1) // 2 if hops > 0 else -((1 - hops) // 2)


def _trigger(value: Any, rights: Rights) -> Any:
    if value.dag_id is None:
        return replace(value, files=[]) if rights.sees_dataset(value.dataset or "") else None
    return _by_dag(value, rights)


def _webhook(value: Any, rights: Rights) -> Any:
    """Show a webhook of a dataset that one sees; its file may hold DAGs of others."""
    return replace(value, file="") if rights.sees_dataset(value.dataset) else None


def _why_not(value: Any, rights: Rights) -> Any:
    return replace(value, last_run=value.last_run and _run(value.last_run, rights))


def _groups(value: Any, rights: Rights) -> Any:
    return replace(value, groups=_cut(value.groups, rights))


def _info(value: Any, _rights: Rights) -> Any:
    # Hosts and files are the operator's, who has a role on everything.
    return replace(value, workers=[], import_errors=0)


RULES: Mapping[type, _Rule] = {
    resources.Page: _page,
    resources.DagPage: _dag_page,
    resources.RunView: _run,
    resources.RunDetail: _run,
    resources.EventView: _event,
    resources.DatasetView: _dataset,
    datasets.DatasetDetail: _dataset_detail,
    explain.EventWithOutcomes: _event_with_outcomes,
    explain.Explanation: _explanation,
    explain.ExplainedRun: _explained_run,
    explain.WhyNot: _why_not,
    explain.DeadLetterSummary: _groups,
    checks.HeldEventView: _held_event,
    triggers.TriggerView: _trigger,
    webhooks.WebhookView: _webhook,
    server.Info: _info,
    causality.CausalTrace: _trace,
    overviews.Summary: _summary,
    overviews.FailureView: _run,
    overviews.LongRunView: _run,
    overviews.RunsGrid: _grid,
    graphs.DatasetGraph: _graph,
    alerts.AlertView: _alert,
    alerts.AlertDetail: _alert_detail,
    **dict.fromkeys(
        (
            resources.DagView,
            resources.DagDetail,
            resources.TaskView,
            resources.TaskDetail,
            datasets.ProducerView,
            datasets.ConsumerView,
            explain.EventOutcomeView,
            explain.PlannedRuns,
            explain.DeadLetterView,
            explain.DeadLetterDetail,
            explain.DeadLetterGroup,
            checks.CheckView,
            backfills.BackfillView,
            bulk.BulkRunView,
            bulk.BulkTasksView,
            approvals.ApprovalView,
            versions.RunGraph,
            versions.VersionDetail,
            versions.DagDeletion,
            overviews.StuckTaskView,
            overviews.ScheduleView,
            timeline.RunTimeline,
        ),
        _by_dag,
    ),
    **dict.fromkeys(
        (checks.CheckResultView, checks.HoldView, datasets.DatasetCheckView), _by_check
    ),
    **dict.fromkeys(
        (
            resources.PostedEvents,
            resources.StartedRun,
            output.OutputLines,
            output.OutputMatches,
            resources.ClearedRun,
            resources.Problem,
            explain.Resent,
            bulk.BulkView,
            bulk.BulkTasks,
            bulk.MarkedRun,
            calls.CallAnswer,
            state.StateView,
            versions.VersionView,
            backfills.PlannedRunView,
            approvals.SignedLink,
            auth.MeView,
            auth.SessionView,
            auth.SignInLink,
            SimulationView,
        ),
        _whole,
    ),
}
"""What remains of each type, for a principal that does not see everything."""
