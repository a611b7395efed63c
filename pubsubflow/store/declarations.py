"""Webhooks and watches that DAG files declare, written in the catalog's transaction."""

from collections.abc import Sequence

import msgspec

from pubsubflow.model.spec import LoadedFile
from pubsubflow.store.database import Connection
from pubsubflow.store.named_queries import SQL

# Deterministic, so that an unchanged webhook has the same bytes and its row is not rewritten.
_encode = msgspec.msgpack.Encoder(order="deterministic").encode


async def save_webhooks(connection: Connection, files: Sequence[LoadedFile]) -> None:
    """Write the webhooks of files, and delete those that the files no longer declare."""
    hooks = sorted((hook.name, file.file, hook) for file in files for hook in file.hooks)
    names = [name for name, _, _ in hooks]
    await connection.execute(SQL["delete_webhooks"], [file.file for file in files], names)
    if hooks:
        owners = [file for _, file, _ in hooks]
        specs = [_encode(hook) for _, _, hook in hooks]
        await connection.execute(SQL["save_webhooks"], names, owners, specs)


async def delete_webhooks(connection: Connection, files: Sequence[str]) -> None:
    """Delete the webhooks of removed files."""
    await connection.execute(SQL["delete_webhooks"], list(files), [])


async def save_watches(connection: Connection, files: Sequence[LoadedFile]) -> None:
    """Write the watches of files; an unchanged watch keeps its trigger and its position.

    Args:
        connection: In a transaction that holds the lock of the catalog.
        files: Imported files whose datasets are written already.
    """
    rows = [
        (file.file, dataset.uri, dataset.watch_name, dataset.watch_data)
        for file in files
        for dataset in file.datasets
        if dataset.watch_name is not None
    ]
    uris, names, data = ([row[column] for row in rows] for column in (1, 2, 3))
    if rows:
        await connection.execute(SQL["save_watches"], uris, names, data)
    await connection.execute(SQL["delete_watch_files"], [file.file for file in files])
    if rows:
        owners = [row[0] for row in rows]
        await connection.execute(SQL["save_watch_files"], owners, uris, names, data)
    # Last: a watch that moved to another file has its new declaration by now, and so survives.
    await connection.execute(SQL["delete_unwatched_triggers"])


async def delete_watches(connection: Connection, files: Sequence[str]) -> None:
    """Delete the watches of removed files."""
    await connection.execute(SQL["delete_watch_files"], list(files))
    await connection.execute(SQL["delete_unwatched_triggers"])
