"""JSON types of the versions of DAGs, of graphs of runs, and of deletions of DAGs."""

from datetime import datetime
from typing import Any

from msgspec import Struct

from pubsubflow.model.api.resources import DagTaskView
from pubsubflow.model.api.version_shares import VersionRuns
from pubsubflow.model.source.changes import VersionChanges


class VersionView(Struct, frozen=True, kw_only=True):
    """A version of a DAG in a list.

    Attributes:
        number: Its number, from 1; the DAG's versions are numbered as they are found.
        created_at: When a loader imported it first.
        in_force: Whether new runs have it.
        bundle: Hash of the files with which it was in force last; empty if it never was.
        stored: Whether those files are stored, so that runs can have it.
        changes: What it changed in comparison with the version numbered before it; None for the
            first, and where that one is removed.
    """

    number: int
    created_at: datetime
    in_force: bool
    bundle: str
    stored: bool
    schedule: str | None
    tasks: int
    runs: VersionRuns
    changes: VersionChanges | None = None


class VersionDetail(VersionView, frozen=True, kw_only=True):
    """A version of a DAG with its graph and the source of its file.

    Attributes:
        file: Its DAG file, relative to the DAGs folder.
        line: Where the DAG is defined in it.
        source: Text of the DAG file; None where it is not shown.
        source_hidden: Why it is not.
    """

    dag_id: str
    file: str
    line: int | None = None
    graph: list[DagTaskView]
    params: dict[str, Any]
    params_schema: dict[str, Any] | None = None
    max_active_runs: int
    source: str | None = None
    source_hidden: str | None = None


class VersionFile(Struct, frozen=True, kw_only=True):
    """A file of a version.

    Attributes:
        path: Relative to the folder of its bundle.
        hash: SHA-256 of its content.
    """

    path: str
    size: int
    hash: str


class VersionFiles(Struct, frozen=True, kw_only=True):
    """The files of a version, and the text of one of them.

    Attributes:
        files: All files of its bundle by path; empty where they are not stored any more.
        file: The path of the one whose text this is.
        text: None where it is not shown.
        hidden: Why it is not.
    """

    dag_id: str
    number: int
    files: list[VersionFile]
    file: str
    text: str | None = None
    hidden: str | None = None


class RunGraph(Struct, frozen=True, kw_only=True):
    """The graph of a run, in the version that the run has.

    Attributes:
        datasets: What the version's schedule takes: URIs or patterns.
        states: Task id → state → number of instances; a task that has not begun has none.
    """

    run_id: str
    dag_id: str
    version: int
    graph: list[DagTaskView]
    datasets: list[str]
    states: dict[str, dict[str, int]]


class DagDeletion(Struct, frozen=True, kw_only=True):
    """What a deletion of a DAG removes.

    Attributes:
        dry_run: Whether nothing was removed.
        keeps_history: Whether its runs and versions stay.
        active_runs: Its runs that had not ended.
        runs, versions: Its history; removed by and by, the oldest first, unless it stays.
        pending_events: Events that its schedule had not consumed; the events themselves stay.
        conditions: Partitions, or the one state, of its schedule.
        state_values: Values that its tasks kept from run to run.
        timers: Ticks and deadlines.
        subscriptions: Datasets that it subscribed to.
        dead_letters: Its dead letters; they stay with the history.
    """

    dag_id: str
    dry_run: bool
    keeps_history: bool
    active_runs: int
    runs: int
    versions: int
    pending_events: int
    conditions: int
    state_values: int
    timers: int
    subscriptions: int
    dead_letters: int
