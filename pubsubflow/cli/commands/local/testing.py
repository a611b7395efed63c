"""Runs of DAGs and tasks in this process, without a daemon."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Struct

from pubsubflow.airflow.outside.standalone import running_bundles
from pubsubflow.authoring.dag import DAG
from pubsubflow.authoring.runtime.inprocess import RunResult, TaskResult
from pubsubflow.cli import output
from pubsubflow.cli.commands.local.settings import local_config
from pubsubflow.cli.local_dags import DEFAULT_FOLDER, open_dag
from pubsubflow.cli.param_values import typed_params
from pubsubflow.cli.parsers import json_or_text, mapping, moment, split_pair
from pubsubflow.cli.shell.parameter import Parameter
from pubsubflow.cli.texts import Text
from pubsubflow.model.json_values import json_fault
from pubsubflow.model.runs.states import RunState, TaskState
from pubsubflow.model.wire.messages import NOT_MAPPED

Single = Annotated[tuple[str, ...], Parameter(alias="-p")]
Events = Annotated[tuple[str, ...], Parameter(name="--event", alias="-e")]
At = Annotated[str | None, Parameter(name="--at", allow_leading_hyphen=True)]


class TestedTask(Struct, frozen=True):
    """The outcome of one task, in JSON."""

    task_id: str
    map_index: int | None
    state: str
    attempts: int
    result: Any
    error: str | None
    output: list[str]
    map_name: str | None = None


class TestedEvent(Struct, frozen=True):
    """A dataset event that a task emitted, in JSON."""

    dataset: str
    extra: dict[str, Any]
    partition: str | None


class TestedRun(Struct, frozen=True):
    """The outcome of a run, in JSON."""

    dag_id: str
    state: str
    error: str | None
    tasks: list[TestedTask]
    emitted: list[TestedEvent]


def run_dag(
    dag: str,
    /,
    *,
    param: Single = (),
    params: str | None = None,
    event: Events = (),
    select: str | None = None,
    at: At = None,
    dags: Path = DEFAULT_FOLDER,
    config: Path | None = None,
    json: bool = False,
) -> int:
    """Run a DAG in this process, without a daemon, and fail if the run fails.

    Delays between attempts pass at once. What tasks print is shown as they print it.

    Args:
        dag: Id of the DAG.
        param: A param of the run, as name=value; the value is read as the param's type, as JSON, or
            else as text. May be repeated.
        params: All of the run's params, as a JSON object.
        event: A consumed event: the URI of a dataset, or URI={"rows": 1} with its extra. May be
            repeated.
        select: Only these tasks: ids, with + or * before or after one for its neighbours.
        at: Logical time of the run: 2026-11-20, 2026-11-20T16:00, or -2h.
        dags: The folder of DAG files, or one file; ./dags if left out.
        config: Configuration file; ./pubsubflow.toml if left out.
        json: Print JSON.
    """
    with _opened(dags, dag, config) as found, _output(json=json):
        run = found.test(
            _params(found, params, param), _events(event), select, logical_time=moment(at)
        )
    _show(dag, run, json=json)
    return 0 if run.state == RunState.SUCCESS else 1


def run_task(
    dag: str,
    task: str,
    /,
    *,
    result: tuple[str, ...] = (),
    param: Single = (),
    params: str | None = None,
    event: Events = (),
    at: At = None,
    dags: Path = DEFAULT_FOLDER,
    config: Path | None = None,
    json: bool = False,
) -> int:
    """Run one task of a DAG in this process, without a daemon, and fail if it fails.

    Args:
        dag: Id of the DAG.
        task: Id of the task.
        result: The result of a task that it depends on, as task=value; the value is JSON, or else
            text. May be repeated.
        param: A param of the run, as name=value; the value is read as the param's type, as JSON, or
            else as text. May be repeated.
        params: All of the run's params, as a JSON object.
        event: A consumed event: the URI of a dataset, or URI={"rows": 1} with its extra. May be
            repeated.
        at: Logical time of the run: 2026-11-20, 2026-11-20T16:00, or -2h.
        dags: The folder of DAG files, or one file; ./dags if left out.
        config: Configuration file; ./pubsubflow.toml if left out.
        json: Print JSON.
    """
    given = dict(split_pair(pair, "result") for pair in result)
    with _opened(dags, dag, config) as found, _output(json=json):
        run = found.test(
            _params(found, params, param),
            _events(event),
            [task],
            results={name: json_or_text(value) for name, value in given.items()},
            logical_time=moment(at),
        )
    _show(dag, run, json=json)
    return 0 if run.state == RunState.SUCCESS else 1


@contextmanager
def _opened(folder: Path, dag_id: str, config: Path | None) -> Iterator[DAG]:
    """Yield a DAG of a folder; the interpreters of Airflow's bundles run meanwhile."""
    settings = local_config(config)
    with running_bundles(settings.bundles, settings.home) as bundles:
        yield open_dag(folder, dag_id, settings.loader, bundles)


@contextmanager
def _output(*, json: bool) -> Iterator[None]:
    """Keep stdout for the JSON: what tasks print goes to stderr then."""
    with redirect_stdout(sys.stderr) if json else nullcontext():
        yield


def _params(dag: DAG, whole: str | None, single: Sequence[str]) -> dict[str, Any] | None:
    spec = dag.to_spec("", "")
    return typed_params(spec.params, spec.params_schema, whole, single)


def _events(given: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    events = []
    for text in given:
        # A URI may have an equals sign, but ends before the first that a JSON object follows.
        uri, found, extra = text.partition("={")
        events.append((uri, mapping("{" + extra) if found else {}))
    return events


def _show(dag_id: str, run: RunResult, *, json: bool) -> None:
    tasks = [task for instances in run.tasks.values() for task in instances]
    if json:
        emitted = [
            TestedEvent(event.dataset.uri, dict(event.extra), event.partition)
            for event in run.emitted
        ]
        output.show_json(
            TestedRun(dag_id, run.state, run.error, [_in_json(task) for task in tasks], emitted)
        )
        return
    listing = output.Listing("task", "state", "attempts", "result", right=["attempts"])
    for task in tasks:
        name = f"{_name(task)} {task.map_name}".rstrip()
        listing.row(name, output.state(task.state), str(task.attempts or ""), _result(task))
    listing.show(none="no tasks")
    for task in tasks:
        for line in (each for each in task.logs if each.stream == "log"):
            fields = "".join(f" {name}={value}" for name, value in line.fields.items())
            output.show(Text.assemble(f"{_name(task)} logged ", line.message, (fields, "dim")))
    for event in run.emitted:
        output.show(
            Text.assemble(
                "emitted ",
                (event.dataset.uri, "cyan"),
                f" {output.compact(dict(event.extra))}" if event.extra else "",
                f" partition {event.partition}" if event.partition else "",
            )
        )
    for task in tasks:
        if task.error is not None and task.state != TaskState.SKIPPED:
            output.show(Text(f"{_name(task)}: {task.error.traceback.rstrip()}", "red"))
    why = f": {run.error}" if run.error else ""
    output.show(Text.assemble(f"{dag_id} ", output.state(run.state), why))


def _in_json(task: TaskResult) -> TestedTask:
    error = task.error
    return TestedTask(
        task.task_id,
        None if task.map_index == NOT_MAPPED else task.map_index,
        task.state,
        task.attempts,
        None if json_fault(task.value, "the result") else task.value,
        None if error is None else f"{error.type}: {error.message}",
        [line.message for line in task.logs],
        task.map_name or None,
    )


def _name(task: TaskResult) -> str:
    return task.task_id + ("" if task.map_index == NOT_MAPPED else f".{task.map_index}")


def _result(task: TaskResult) -> str:
    if task.value is None:
        return ""
    return msgspec.json.encode(task.value).decode()
