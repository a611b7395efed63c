"""What travels between the loader and its child processes."""

from msgspec import Struct

from pubsubflow.model.spec import LoadedFile


class ImportOrder(Struct, frozen=True):
    """An order to import one file.

    Attributes:
        root: The DAGs folder, without symbolic links.
        file: Path relative to it.
        seconds: Time limit.
    """

    root: str
    file: str
    seconds: float


class Imported(Struct, frozen=True):
    """The answer.

    Attributes:
        borrowed: DAG id → file, for DAGs that another module made while it was imported.
        borrowed_hooks: Webhook's name → file, likewise.
    """

    loaded: LoadedFile
    borrowed: dict[str, str] = {}
    borrowed_hooks: dict[str, str] = {}
