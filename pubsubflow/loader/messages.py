"""Messages between the loader and its child processes."""

from msgspec import Struct

from pubsubflow.model.spec import LoadedFile


class ImportRequest(Struct, frozen=True):
    """The request to import one file.

    Attributes:
        folder: The folder of its bundle on disk.
        root: The folder that users know it by.
        file: Path of the DAG file relative to the DAGs folder.
        path: Its path relative to the bundle's folder.
        seconds: Time limit.
    """

    folder: str
    root: str
    file: str
    path: str
    seconds: float


class ImportResult(Struct, frozen=True):
    """The result of an import.

    Attributes:
        reads: What the import read of its bundle: files, also ones that are not there, and folders
            that were listed, with a slash at their end.
        foreign_dags: DAG id → file, for DAGs that an imported module of the folder defines.
        foreign_hooks: Webhook's name → file, likewise.
        outside: Whether it failed for a reason that may lie outside of the folder.
    """

    loaded: LoadedFile
    reads: tuple[str, ...] = ()
    foreign_dags: dict[str, str] = {}
    foreign_hooks: dict[str, str] = {}
    outside: bool = False
