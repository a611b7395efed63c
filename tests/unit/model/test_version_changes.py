"""What differs between two versions of a DAG."""

from msgspec.structs import replace

from pubsubflow.model.source.changes import VersionChanges
from pubsubflow.model.source.version_changes import version_changes
from support.specs import dag, task

OLD = dag("d", task("a"), task("b", "a"), task("c", "b"), on="x & y")


def test_equal_versions_differ_in_nothing():
    assert version_changes(OLD, OLD) == VersionChanges()


def test_the_order_and_the_lines_of_tasks_are_no_change():
    moved = dag("d", task("a", line=7), task("c", "b", line=9), task("b", "a", line=8), on="x & y")
    # Indices differ, ids do not.
    edges = {"a": (), "b": (0,), "c": (2,)}
    tasks = tuple(replace(each, upstream=edges[each.task_id]) for each in moved.tasks)
    assert version_changes(OLD, replace(moved, tasks=tasks)) == VersionChanges()


def test_tasks_are_named():
    new = dag("d", task("a", queue="big"), task("c", "a"), task("z"), on="x & y", source="other")
    found = version_changes(OLD, new)
    assert (found.added, found.removed, found.code) == (["z"], ["b"], True)
    assert [(each.task_id, each.fields) for each in found.changed] == [
        ("a", ["queue"]),
        ("c", ["upstream"]),
    ]


def test_schedule_and_options_are_named():
    assert version_changes(OLD, dag("d", task("a"), on="x | y")).schedule
    assert version_changes(OLD, replace(OLD, catchup=True)).schedule
    found = version_changes(OLD, replace(OLD, params={"n": 1}, max_active_runs=2))
    assert (found.options, found.schedule) == (["params", "max_active_runs"], False)
