"""The structures of a DAG file: what it makes, or the error of its import."""

import traceback

from pubsubflow.airflow.inside.load import Loaded, load
from pubsubflow.airflow.inside.translate import translate
from pubsubflow.airflow.structure import LoadedStructure


def loaded_structure(path: str, *, root: str, legacy: bool) -> LoadedStructure:
    """Import a DAG file and return the structures of its DAGs; see `load`."""
    return structure_of(load(path, root=root, legacy=legacy))


def structure_of(found: Loaded) -> LoadedStructure:
    """Return the structures of what a file has made."""
    notes = tuple(f"{note.file}:{note.line}: {note.text}" for note in found.notes)
    texts = tuple(": ".join(filter(None, (each.reason, each.remedy))) for each in found.problems)
    if found.error is not None or (texts and not found.dags):
        return LoadedStructure((), notes, texts[0], found.traceback)
    try:
        # Single DAGs may be refused, as by a policy: the others of the file are there.
        notes += texts
        return LoadedStructure(tuple(map(translate, found.dags.values())), notes)
    except Exception as error:  # noqa: BLE001 - a DAG may hold anything
        return _failed(error, notes, traceback.format_exc())


def _failed(error: BaseException, notes: tuple[str, ...], trace: str) -> LoadedStructure:
    text = str(error).strip()
    first = text.splitlines()[0] if text else ""
    return LoadedStructure((), notes, f"{type(error).__name__}: {first}", trace)
