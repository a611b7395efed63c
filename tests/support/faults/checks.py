"""Checks after a round: nothing is lost, nothing happened twice."""

import re
from collections import Counter, defaultdict

import msgspec

from support.faults.executions import Execution
from support.faults.load import Load
from support.faults.reference import CONDITIONS, datasets, outcome, replay
from support.faults.state import Run, State

_EMPTY = ("run_live", "run_queue", "task_live", "timer", "dead_letter")


def check(state: State, load: Load, executions: list[Execution], *, output: bool = True):
    """Check a round that has come to rest against what was posted and executed.

    Args:
        state: What is stored.
        load: What was posted.
        executions: What was executed.
        output: Whether each execution that ended has left all of its output.
    """
    left = {table: state.counts[table] for table in _EMPTY if state.counts[table]}
    assert not left, left
    check_events(state, load)
    check_consumption(state)
    for run in state.runs.values():
        check_run(run, state)
        if output:
            check_output(run)
    check_executions(state, executions)


def check_events(state: State, load: Load):
    """Every posted id is one event, under the id in the answer to its sender."""
    assert load.ids.keys() == load.events.keys()
    posted = {
        event_id: (name, extra)
        for event_id, name, extra, source in state.events.values()
        if source == "api"
    }
    assert posted == {
        event_id: (load.events[key].dataset.removeprefix("fault://"), load.events[key].extra)
        for key, event_id in load.ids.items()
    }
    # Requests have keys as well, beside those of their events.
    assert state.counts["idempotency_key"] >= len(load.ids)
    uuids = [event_id for event_id, *_ in state.events.values()]
    assert len(set(uuids)) == len(uuids)


def check_consumption(state: State):
    """Every DAG decided as the log's order alone says; no run exists twice."""
    log = [(number, name) for number, (_, name, *_) in state.events.items()]
    by_dag: dict[str, list[Run]] = defaultdict(list)
    for run in state.runs.values():
        by_dag[run.dag_id].append(run)
    for dag_id, condition in CONDITIONS.items():
        firings, left = replay(condition, log)
        runs = by_dag.pop(dag_id, [])
        consumed = [[event for event, _ in run.consumed] for run in runs]
        assert Counter(map(frozenset, consumed)) == Counter(firings), dag_id
        assert all(len(set(events)) == len(events) for events in consumed), dag_id
        assert sorted(state.pending.get(dag_id, [])) == sorted(left), dag_id
        keys = {f"dataset:{state.events[max(firing)][0]}" for firing in firings}
        assert {run.run_key for run in runs} == keys, dag_id
        row = state.dag_states[dag_id]
        assert (row["active"], row["queued"], row["catch_up_from"]) == (0, 0, None), dag_id
        assert state.counted[dag_id] == len(left), dag_id
    assert not by_dag


def check_run(run: Run, state: State):
    """A run finished, with the right results, events and output."""
    errors = {key: row["error"] for key, row in run.tasks.items()}
    facts = (run.state, run.ended, run.kind)
    assert facts == ("success", True, "dataset"), (run.dag_id, run.run_id, errors)
    sums: Counter[str] = Counter()
    for event, _ in run.consumed:
        _, name, extra, _ = state.events[event]
        sums[name] += extra["n"]
    assert sums.keys() <= datasets(CONDITIONS[run.dag_id])
    results, emits = outcome(run.dag_id, sums)
    found = {
        key: None if row["result"] is None else msgspec.msgpack.decode(row["result"])
        for key, row in run.tasks.items()
    }
    assert found == results, run.dag_id
    assert {row["state"] for row in run.tasks.values()} == {"success"}
    assert sorted(run.emitted, key=str) == sorted(
        ((name, {"n": n}) for name, n in emits.items()), key=str
    ), run.dag_id
    if run.dag_id in ("row", "line"):
        given = results["first", -1]
        assert f"the second has {given}" in run.logs.get("second", ""), run.run_id
    if run.dag_id == "shaky":
        odd = sums["shaky/in"] % 2
        assert run.tasks["stumble", -1]["attempt"] == 1 + odd


def check_output(run: Run):
    """Each execution that ended has left all of its output, also beside one that was killed."""
    if run.dag_id in ("row", "line"):
        ended = set(re.findall(r"ends (\w+)", run.logs["first"]))
        assert ended, run.run_id
        assert ended <= set(re.findall(r"begins (\w+)", run.logs["first"])), run.run_id


def check_executions(state: State, executions: list[Execution]):
    """What is recorded as done was done, and no attempt beyond the recorded one was."""
    attempts = {
        (run.run_id, run.dag_id, task_id, map_index): row["attempt"]
        for run in state.runs.values()
        for (task_id, map_index), row in run.tasks.items()
    }
    executed: dict[tuple, set[int]] = defaultdict(set)
    for execution in executions:
        *what, attempt = execution.what
        executed[tuple(what)].add(attempt)
    assert {what: max(done) for what, done in executed.items()} == attempts
