"""What a batch has to tell: one row of the log of news, written with the state."""

from collections.abc import Iterator

from msgspec.structs import replace

from pubsubflow.manager.unit_of_work import Ledger, LoggedEvent, RunWork
from pubsubflow.model.changes import (
    MAX_EXTRA_BYTES,
    DagChange,
    DagNews,
    DatasetNews,
    Item,
    RunNews,
    TaskNews,
    encode_items,
    item_of,
)
from pubsubflow.model.runs.states import RunState
from pubsubflow.model.wire.messages import NOT_MAPPED

_MAX_ERROR_CHARACTERS = 500


def tell(ledger: Ledger) -> list[tuple[bytes]]:
    """Return the row of a batch for the log; nothing for a batch that changes nothing.

    What led to something comes before it: tasks that ended, the events they emitted, runs that
    ended or began, their tasks.
    """
    ledger.run_news = list(_run_changes(ledger))
    items = list(_items(ledger))
    ledger.told = bool(items)
    return [(encode_items(items),)] if items else []


def _run_changes(ledger: Ledger) -> Iterator[RunNews]:
    """Yield the states that runs have entered."""
    for start in ledger.starts.values():
        if start.refused is None and (
            start.number not in ledger.runs or ledger.runs[start.number].outcome is None
        ):
            yield RunNews(
                run_id=str(start.run_id),
                dag_id=start.gate.version.spec.dag_id,
                state=start.state or RunState.QUEUED,
                time=ledger.now,
            )
    for run in ledger.runs.values():
        if run.outcome is not None:
            yield _run(run, run.outcome, ledger)
    for run in ledger.runs.values():
        if run.new and run.outcome is None and run.number not in ledger.starts:
            yield _run(run, RunState.RUNNING, ledger)
    for run_id, dag_id in ledger.requeued:
        yield RunNews(run_id=run_id, dag_id=dag_id, state=RunState.QUEUED, time=ledger.now)
    for run_id, dag_id in ledger.unqueued:
        yield RunNews(run_id=run_id, dag_id=dag_id, state=RunState.CANCELLED, time=ledger.now)


def _items(ledger: Ledger) -> Iterator[Item]:
    for dag_id, paused in ledger.paused:
        what = DagChange.PAUSED if paused else DagChange.UNPAUSED
        yield item_of(DagNews(dag_id=dag_id, change=what, time=ledger.now))
    for run in ledger.runs.values():
        for ended in _ended_tasks(run, ledger):
            yield item_of(ended)
    for event in ledger.logged:
        yield _event(event, ledger)
    for change in ledger.run_news:
        yield item_of(change)
    for run in ledger.runs.values():
        for task in _live_tasks(run, ledger):
            yield item_of(task)


def _run(run: RunWork, state: RunState, ledger: Ledger) -> RunNews:
    return RunNews(
        run_id=run.facts.run_id,
        dag_id=run.version.spec.dag_id,
        state=state,
        error=_short(run.error),
        time=ledger.now,
    )


def _ended_tasks(run: RunWork, ledger: Ledger) -> Iterator[TaskNews]:
    spec = run.version.spec
    for task in run.ended_tasks:
        error = task.error
        yield TaskNews(
            run_id=run.facts.run_id,
            dag_id=spec.dag_id,
            task_id=spec.tasks[task.node].task_id,
            map_index=_index(task.map_index),
            state=task.state,
            attempt=task.attempt,
            error=_short(f"{error.type}: {error.message}") if error is not None else None,
            time=ledger.now,
        )


def _live_tasks(run: RunWork, ledger: Ledger) -> Iterator[TaskNews]:
    spec = run.version.spec
    for (node, map_index), task in run.live.items():
        if (task.state, task.attempt) != task.before:
            yield TaskNews(
                run_id=run.facts.run_id,
                dag_id=spec.dag_id,
                task_id=spec.tasks[node].task_id,
                map_index=_index(map_index),
                state=task.state,
                attempt=task.attempt,
                time=ledger.now,
            )


def _event(event: LoggedEvent, ledger: Ledger) -> Item:
    info = event.info
    news = DatasetNews(
        event_id=info.event_id,
        dataset=info.dataset,
        extra=info.extra,
        partition=info.partition,
        source=info.source,
        run_id=info.run_id,
        dag_id=info.dag_id,
        task_id=info.task_id,
        event_time=info.time,
        time=ledger.now,
    )
    item = item_of(news)
    return item if len(item.data) <= MAX_EXTRA_BYTES else item_of(replace(news, extra=None))


def _index(map_index: int) -> int | None:
    return None if map_index == NOT_MAPPED else map_index


def _short(text: str | None) -> str | None:
    return text and text[:_MAX_ERROR_CHARACTERS]
