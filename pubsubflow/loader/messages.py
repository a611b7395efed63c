"""Messages between the loader and its child processes."""

from typing import Any

from msgspec import Struct

from pubsubflow.loader.evidence import Evidence
from pubsubflow.model.spec import LoadedFile


class ImportRequest(Struct, frozen=True):
    """The request to import one file.

    Attributes:
        folder: The folder of its bundle on disk.
        root: The folder that users know it by.
        file: Path of the DAG file relative to the DAGs folder.
        path: Its path relative to the bundle's folder.
        seconds: Time limit.
        variables: The variables that it may use: name → its value, in a tuple that is empty for
            one that is not set.
        secrets: Names of those that are secret.
        kind: Of the bundle; see `Manifest`.
    """

    folder: str
    root: str
    file: str
    path: str
    seconds: float
    variables: dict[str, tuple[Any, ...]] = {}
    secrets: tuple[str, ...] = ()
    kind: str = ""


class ImportResult(Struct, frozen=True):
    """The result of an import.

    Attributes:
        reads: What the import read of its bundle: files, also ones that are not there, and folders
            that were listed, with a slash at their end.
        foreign_dags: DAG id → file, for DAGs that an imported module of the folder defines.
        foreign_hooks: Webhook's name → file, likewise.
        outside: Whether it failed for a reason that may lie outside of the folder.
        variables: The variables that it has used.
        wanted: Names of those that it has used and that the request did not have.
        clean: Whether the process may import another file: nothing of this one is left in it.
        evidence: What beside the bundle decided what it made; None where that is not known.
    """

    loaded: LoadedFile
    reads: tuple[str, ...] = ()
    foreign_dags: dict[str, str] = {}
    foreign_hooks: dict[str, str] = {}
    outside: bool = False
    variables: dict[str, tuple[Any, ...]] = {}
    wanted: tuple[str, ...] = ()
    clean: bool = False
    evidence: Evidence | None = None
