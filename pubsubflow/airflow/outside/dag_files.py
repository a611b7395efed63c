"""DAG files of Airflow: imported in the interpreter of their bundle, they make DAGs here."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from pubsubflow.airflow.outside.build import build_dag
from pubsubflow.airflow.outside.client import blocking_client, exchange_blocking
from pubsubflow.airflow.outside.place import BundlePlace, place_of
from pubsubflow.airflow.protocol import ClientRequest, Question
from pubsubflow.airflow.structure import LoadedStructure
from pubsubflow.authoring.registry import LoadedDefinitions, variable
from pubsubflow.errors import ConfigError, DefinitionError

_MAY_HOLD_DAGS = (b"dag", b"airflow")


class AirflowImportError(DefinitionError):
    """A DAG file of Airflow that cannot be imported; its text is what the file raised."""


def read_file(kind: str, folder: str, root: str, file: str, into: LoadedDefinitions) -> None:
    """Import a DAG file in the interpreter of its bundle, and make its DAGs in this process.

    Args:
        kind: What the bundle's manifest says of its kind.
        folder: The folder of the bundle on disk.
        root: The folder that users know it by.
        file: The DAG file, relative to it.
        into: Knows the variables that it may use; the DAGs are added by their constructors.

    Raises:
        AirflowImportError: The file raised something.
        DefinitionError: A DAG cannot be run here; the message says why.
        HostUnreachable: The interpreter's process does not answer.
    """
    # As Airflow's safe mode: a file without these words is a module of others. That of an archive
    # looks at each of its modules.
    text = Path(folder, file).read_bytes().lower()
    if file.endswith(".py") and not all(word in text for word in _MAY_HOLD_DAGS):
        return
    place = place_of(kind, folder, root, file)
    found = _imported(place)
    for name in found.reads:
        with suppress(OSError), Path(folder, name).open("rb"):
            pass  # it is recorded what this process opens: see `loader.reads`
    if found.error is not None:
        error = AirflowImportError(found.error)
        if found.traceback:
            error.add_note(found.traceback)
        raise error
    known = msgspec.structs.replace(place, variables=dict(into.used))
    for structure in found.dags:
        dag = build_dag(structure, known)
        dag.hints = [*dag.hints, *structure.notes, *found.notes]


def _imported(place: BundlePlace) -> LoadedStructure:
    request = ClientRequest("load", place.folder, place.root, place.file, place.legacy)
    silence = os.open(os.devnull, os.O_WRONLY)
    try:
        with blocking_client(place.address, request, silence) as sock:
            found = exchange_blocking(sock, _answer)
    finally:
        os.close(silence)
    if not isinstance(found, LoadedStructure):
        raise TypeError(f"an import ended with {type(found).__name__}")
    return found


def _answer(question: Question) -> Any:
    """Answer with a variable as the version of the DAG has it; connections are for tasks."""
    if question.name == "connection":
        return None
    if question.name != "variable":
        what = question.arguments.get("kind", question.name)
        raise ConfigError(
            f"a file has no answer to this while it is loaded ({what}): move it into a task"
        )
    value = variable(question.arguments["name"], None)
    return value if value is None or isinstance(value, str) else msgspec.json.encode(value).decode()
