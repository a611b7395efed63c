"""Bundles in the store: the files of DAGs folders by content, and the sources of runs."""

from collections.abc import Callable

import msgspec

from pubsubflow.model.source.bundles import BundleFile, DagSource, Manifest, parse_source_key
from pubsubflow.model.source.stored_specs import STORED_SPEC
from pubsubflow.store.database import Connection, Database
from pubsubflow.store.named_queries import SQL

_BYTES_A_WRITE = 4 << 20
_manifests = msgspec.msgpack.Decoder(Manifest)


def decode_manifest(manifest: bytes) -> Manifest:
    """Return a stored manifest."""
    return _manifests.decode(manifest)


async def write_bundle(
    database: Database,
    bundle: str,
    manifest: Manifest,
    read: Callable[[BundleFile], bytes],
    before: tuple[str, Manifest] | None = None,
) -> None:
    """Write a bundle and those of its files that are not stored yet.

    Args:
        database: Postgres.
        bundle: Its hash.
        manifest: Its files.
        read: Returns the content of one.
        before: Hash and manifest of a bundle that was written earlier: while it is stored, so are
            its files, and only the others are looked up.
    """
    files = {file.hash: file for file in manifest.files.values()}
    async with database.session() as connection:
        # Held until the connection is released: retention must not remove a file that is found
        # here before the bundle that has it.
        await connection.execute(SQL["lock_source_files"])
        wanted = set(files)
        if before is not None and await connection.fetchval(SQL["has_bundle"], before[0]):
            wanted -= {file.hash for file in before[1].files.values()}
        rows = await connection.fetch(SQL["find_missing_source_files"], sorted(wanted))
        hashes: list[str] = []
        data: list[bytes] = []
        size = 0
        for row in rows:
            hashes.append(row["hash"])
            data.append(read(files[row["hash"]]))
            size += len(data[-1])
            if size >= _BYTES_A_WRITE:
                await connection.execute(SQL["save_source_files"], hashes, data)
                hashes, data, size = [], [], 0
        await connection.execute(SQL["save_source_files"], hashes, data)
        # Last: whoever finds a bundle finds its files.
        await connection.execute(SQL["save_bundle"], bundle, msgspec.msgpack.encode(manifest))
        await connection.execute(SQL["unlock_source_files"])


async def read_source(connection: Connection, key: str) -> DagSource | None:
    """Return the source of a run; None when it is not of this database.

    Args:
        connection: Postgres.
        key: See `source_key`.
    """
    ids = parse_source_key(key)
    if ids is None:
        return None
    manifest = await read_manifest(connection, ids.bundle)
    row = await connection.fetchrow(SQL["read_version_hash"], ids.version)
    if manifest is None or row is None or not row["hash"].startswith(ids.version_hash):
        return None
    spec = STORED_SPEC.decode(row["spec"])
    base = decode_manifest(manifest).base
    file = spec.file.removeprefix(f"{base}/") if base else spec.file
    return DagSource(key, ids.bundle, file, spec.dag_id, spec.tasks, spec.variables)


async def read_manifest(connection: Connection, bundle: str) -> bytes | None:
    """Return the encoded manifest of a bundle, or None."""
    found: bytes | None = await connection.fetchval(SQL["read_bundle"], bundle)
    return found


async def read_source_file(
    connection: Connection, file: str, offset: int, size: int
) -> tuple[bytes, int] | None:
    """Return a part of a file and the size of the whole, or None.

    Args:
        connection: Postgres.
        file: The hash of its content.
        offset: Where the part begins.
        size: Bytes of the part, at most.
    """
    row = await connection.fetchrow(SQL["read_source_file"], file, offset, size)
    return None if row is None else (row["part"], row["size"])
