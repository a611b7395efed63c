"""Messages between the loader and its child processes."""

from msgspec import Struct

from pubsubflow.model.spec import LoadedFile


class ImportRequest(Struct, frozen=True):
    """The request to import one file.

    Attributes:
        root: The DAGs folder, without symbolic links.
        file: Path relative to it.
        seconds: Time limit.
    """

    root: str
    file: str
    seconds: float


class ImportResult(Struct, frozen=True):
    """The result of an import.

    Attributes:
        foreign_dags: DAG id → file, for DAGs that an imported module of the folder defines.
        foreign_hooks: Webhook's name → file, likewise.
    """

    loaded: LoadedFile
    foreign_dags: dict[str, str] = {}
    foreign_hooks: dict[str, str] = {}
