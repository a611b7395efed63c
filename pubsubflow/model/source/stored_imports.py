"""Stored imports: what of an import is in the store, so that a start need not repeat it."""

from msgspec import Struct


class StoredImport(Struct, frozen=True):
    """An import whose outcome is stored exactly as its record says.

    Attributes:
        record: The loader's own, encoded.
        dag_ids: The DAGs that the store has of the file.
        bundles: The bundles that these are in, each once.
    """

    record: bytes
    dag_ids: tuple[str, ...] = ()
    bundles: tuple[str, ...] = ()
