"""The check of one file, in a process of its own."""

import time
from collections.abc import Iterator
from typing import Any

from pubsubflow.airflow.findings import DagReport, FileFindings, FolderRequest, LoadError, Note
from pubsubflow.airflow.inside.checking.dag_lines import dag_lines
from pubsubflow.airflow.inside.load import load
from pubsubflow.airflow.inside.loading.assets import with_names_resolved
from pubsubflow.airflow.inside.loading.explain import shorten
from pubsubflow.airflow.inside.loading.lookups import GivenValues
from pubsubflow.airflow.inside.translate import translate
from pubsubflow.airflow.protocol import encode
from pubsubflow.airflow.structure import DagStructure

_WRITTEN_OTHERWISE = "write a cron, a timedelta or assets as the schedule"
_UNTRANSLATED = "report it to pubsubflow, with the DAG"


def check_file(file: str, root: str, request: FolderRequest) -> FileFindings:
    """Load a file, translate its DAGs, and return what was found.

    Args:
        file: Its path.
        root: The folder of all files.
        request: Whether old names are replaced, and the values for variables and connections.
    """
    started = time.monotonic()
    values = GivenValues(request.variables, request.connections)
    found = load(file, root=root, legacy=request.legacy, values=values)
    name = shorten(file, [root])
    problems, notes = list(found.problems), list(found.notes)
    translated = (_translated(dag, problems, name) for dag in found.dags.values())
    resolved = with_names_resolved([each for each in translated if each is not None])
    lines = dag_lines(file)
    dags, structures = [], []
    for structure in resolved:
        refusals = list(_refusals(structure, name, lines.get(structure.dag_id, 0)))
        problems += refusals
        structures += [] if refusals else [encode(structure)]
        dags.append(DagReport(structure.dag_id, [task.task_id for task in structure.tasks]))
        notes += _notes_of(structure, name)
    # A daemon's connections are for tasks; these came neither from the environment nor a backend.
    for each in found.connections if found.error is None else ():
        use = f"the connection {each!r} is read while the file loads"
        today = f"set AIRFLOW_CONN_{each.upper()} in the bundle's env, or read it in a task"
        notes.append(Note(name, 0, use, today, "changed"))
    # A name that was removed is why the import failed: once is enough.
    places = {(each.file, each.line) for each in problems}
    shown = [each for each in notes if each.kind != "fails" or (each.file, each.line) not in places]
    return FileFindings(
        name,
        dags,
        shown,
        problems,
        time.monotonic() - started,
        found.variables,
        found.connections,
        found.defaulted,
        structures,
    )


def _translated(dag: Any, problems: list[LoadError], file: str) -> DagStructure | None:
    try:
        return translate(dag)
    except Exception as error:  # noqa: BLE001 - a DAG may hold anything
        reason = f"DAG {dag.dag_id!r}: {type(error).__name__}: {error}"
        problems.append(LoadError(reason, _UNTRANSLATED, file))
        return None


def _refusals(structure: DagStructure, file: str, line: int) -> Iterator[LoadError]:
    """Yield why a DAG is refused although Airflow loads it."""
    if structure.refused:
        yield LoadError(f"DAG {structure.dag_id!r}: {structure.refused}", "", file, line)
    for part in _parts(structure.schedule or {}):
        if "custom" in part:
            reason = f"its timetable {part['custom']}: {part.get('reason', 'it is not known')}"
            remedy = part.get("remedy", _WRITTEN_OTHERWISE)
            yield LoadError(f"DAG {structure.dag_id!r}: {reason}", remedy, file, line)


def _parts(schedule: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield schedule
    for kind in ("any", "all"):
        for side in schedule.get(kind, ()):
            yield from _parts(side)
    if "partitioned" in schedule:
        yield from _parts(schedule["partitioned"])


def _notes_of(structure: DagStructure, file: str) -> Iterator[Note]:
    for line in structure.notes:
        yield Note(file, 0, f"DAG {structure.dag_id!r}: {line}", "", "changed")
