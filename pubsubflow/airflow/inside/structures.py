"""The structures of a DAG file: what it makes, or the error of its import."""

import traceback
from collections.abc import Iterator

from pubsubflow.airflow.findings import Note
from pubsubflow.airflow.inside.load import Loaded, load
from pubsubflow.airflow.inside.loading.assets import with_names_resolved
from pubsubflow.airflow.inside.translate import translate
from pubsubflow.airflow.structure import LoadedStructure


def loaded_structure(path: str, *, root: str, legacy: bool) -> LoadedStructure:
    """Import a DAG file and return the structures of its DAGs; see `load`."""
    return structure_of(load(path, root=root, legacy=legacy))


def structure_of(found: Loaded) -> LoadedStructure:
    """Return the structures of what a file has made."""
    notes = tuple(_shown(found.notes))
    texts = tuple(": ".join(filter(None, (each.reason, each.remedy))) for each in found.problems)
    if found.error is not None or (texts and not found.dags):
        return LoadedStructure((), notes, texts[0], found.traceback)
    try:
        # Single DAGs may be refused, as by a policy: the others of the file are there.
        notes += texts
        dags = with_names_resolved([translate(dag) for dag in found.dags.values()])
        return LoadedStructure(dags, notes)
    except Exception as error:  # noqa: BLE001 - a DAG may hold anything
        return _failed(error, notes, traceback.format_exc())


def _shown(notes: list[Note]) -> Iterator[str]:
    """Yield the notes that say more than how a line is written today, and the number of those."""
    works = [note for note in notes if note.kind == "legacy"]
    for note in notes:
        if note.kind != "legacy":
            place = f"{note.file}:{note.line}: " if note.line else ""
            yield f"{place}{note.text}"
    if works:
        number = f"{len(works)} line{'s' * (len(works) != 1)}"
        first = f"from line {works[0].line} on"
        yield f"{number} as in Airflow 2, {first}: see `pubsubflow airflow check`"


def _failed(error: BaseException, notes: tuple[str, ...], trace: str) -> LoadedStructure:
    text = str(error).strip()
    first = text.splitlines()[0] if text else ""
    return LoadedStructure((), notes, f"{type(error).__name__}: {first}", trace)
