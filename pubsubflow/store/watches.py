"""Watched datasets: a trigger each, as long as some file declares it."""

from collections.abc import Sequence

from pubsubflow.model.spec import LoadedFile
from pubsubflow.store.database import Connection
from pubsubflow.store.named_queries import SQL


async def save_watches(connection: Connection, files: Sequence[LoadedFile]) -> None:
    """Record what files watch; a watch that is declared as before goes on where it is.

    Args:
        connection: In a transaction that holds the lock of the catalog.
        files: Files that were imported; their datasets are recorded.
    """
    rows = [
        (file.file, dataset.uri, dataset.watch_name, dataset.watch_data)
        for file in files
        for dataset in file.datasets
        if dataset.watch_name is not None
    ]
    uris, names, data = ([row[place] for row in rows] for place in (1, 2, 3))
    if rows:
        await connection.execute(SQL["save_watches"], uris, names, data)
    await connection.execute(SQL["forget_watch_files"], [file.file for file in files])
    if rows:
        await connection.execute(SQL["link_watches"], [row[0] for row in rows], uris, names, data)
    await connection.execute(SQL["drop_unwatched"])


async def drop_watches(connection: Connection, files: Sequence[str]) -> None:
    """Forget what files watched that are gone."""
    await connection.execute(SQL["forget_watch_files"], list(files))
    await connection.execute(SQL["drop_unwatched"])
