"""Webhooks, watches and freshness that DAG files declare, written in the catalog's transaction."""

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


async def save_freshness(connection: Connection, files: Sequence[LoadedFile]) -> None:
    """Write how fresh files declare datasets to be, and put the shortest times in force.

    Args:
        connection: In a transaction that holds the lock of the catalog.
        files: Imported files whose datasets are written already.
    """
    rows = [
        (each.uri, file.file, file.bundle, each.fresh.seconds, "\n".join(each.fresh.callbacks))
        for file in files
        for each in file.datasets
        if each.fresh is not None
    ]
    names = [file.file for file in files]
    deleted = await connection.fetchval(SQL["delete_freshness_files"], names)
    if rows:
        columns = map(list, zip(*rows, strict=True))
        await connection.execute(SQL["save_freshness_files"], *columns)
    if rows or deleted:
        await connection.execute(SQL["put_freshness_in_force"])


async def pin_freshness(connection: Connection, bundle: str, files: Sequence[str]) -> None:
    """Pin the callbacks of files to another bundle in which they are the same."""
    if await connection.fetchval(SQL["pin_freshness_files"], bundle, list(files)):
        await connection.execute(SQL["put_freshness_in_force"])


async def retire_freshness(connection: Connection, seconds: float) -> float | None:
    """Forget the declarations of files that are gone for that long.

    Returns:
        When the next one is due, in seconds from now; None when no file is gone.
    """
    await connection.execute(SQL["note_gone_freshness_files"])
    (row,) = await connection.fetch(SQL["delete_gone_freshness_files"], seconds)
    if row["deleted"]:
        await connection.execute(SQL["put_freshness_in_force"])
    left: float | None = row["left"]
    return left
