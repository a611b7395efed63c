"""The check of one file, in a process of its own."""

import time
from collections.abc import Iterator
from typing import Any

import msgspec
from airflow import settings

from pubsubflow.airflow.findings import DagReport, FileFindings, FolderRequest, LoadError, Note
from pubsubflow.airflow.inside.load import load
from pubsubflow.airflow.inside.loading.explain import shorten
from pubsubflow.airflow.inside.loading.lookups import GivenValues
from pubsubflow.airflow.inside.translate import translate
from pubsubflow.airflow.structure import DagStructure

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
    folders = [root, str(settings.AIRFLOW_HOME)]
    problems, notes = list(found.problems), list(found.notes)
    dags = []
    for dag in found.dags.values():
        structure = _translated(dag, problems)
        if structure is not None:
            dags.append(DagReport(dag.dag_id, [task.task_id for task in structure.tasks]))
            notes += _notes_of(structure, dag)
    # A name that was removed is why the import failed: once is enough.
    places = {(each.file, each.line) for each in problems}
    shown = [each for each in notes if each.kind != "fails" or (each.file, each.line) not in places]
    return FileFindings(
        shorten(file, folders),
        dags,
        [msgspec.structs.replace(note, file=shorten(note.file, folders)) for note in shown],
        [_shown(each, folders) for each in problems],
        time.monotonic() - started,
        found.variables,
        found.connections,
        found.defaulted,
    )


def _translated(dag: Any, problems: list[LoadError]) -> DagStructure | None:
    try:
        return translate(dag)
    except Exception as error:  # noqa: BLE001 - a DAG may hold anything
        reason = f"DAG {dag.dag_id!r}: {type(error).__name__}: {error}"
        problems.append(LoadError(reason, _UNTRANSLATED, dag.fileloc))
        return None


def _notes_of(structure: DagStructure, dag: Any) -> Iterator[Note]:
    for line in structure.notes:
        yield Note(dag.fileloc, 0, f"DAG {dag.dag_id!r}: {line}", "", "changed")


def _shown(problem: LoadError, folders: list[str]) -> LoadError:
    return msgspec.structs.replace(problem, file=shorten(problem.file, folders))
