"""Migrations: numbered, forward-only, applied under an advisory lock, recorded with checksums.

A migration adds, so that daemons of earlier versions go on beside it. One that breaks them has a
line `-- compatible from: 7`: daemons that know migration 7 work with it, earlier ones refuse to
start.
"""

import hashlib
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources

import structlog
from msgspec import Struct

from pubsubflow.errors import ConfigError, StoreConflict
from pubsubflow.store.database import Connection, Database

log = structlog.get_logger()
# Advisory locks of this package: 7233001 migrations, 7233002 catalog, 7233003 slots, 7233004
# retention, 7233005 source files, 7233006 runs under limits, 7233040 the mover of the log store.
_LOCK = 7_233_001


_COMPATIBLE_FROM = re.compile(r"^-- compatible from: (\d+)$", re.MULTILINE)
_FIRST = 1


class Migration(Struct, frozen=True):
    """One file of `migrations/`."""

    name: str
    text: str

    @property
    def number(self) -> int:
        """The number that its name begins with."""
        return _number(self.name)

    @property
    def checksum(self) -> str:
        """Return the SHA-256 of the text, hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def compatible_from(self) -> int:
        """The number of the migration that a daemon must know at least to work with this one."""
        found = _COMPATIBLE_FROM.search(self.text)
        return _FIRST if found is None else int(found[1])


class AppliedMigration(Struct, frozen=True):
    """A migration as the database has recorded it; see `Migration`."""

    name: str
    checksum: str
    compatible_from: int


def load_migrations() -> list[Migration]:
    """Return all migrations in order."""
    return list(_read_migrations())


@cache
def _read_migrations() -> tuple[Migration, ...]:
    folder = resources.files("pubsubflow.store") / "migrations"
    files = sorted(folder.iterdir(), key=lambda entry: entry.name)
    sources = (file for file in files if file.name.endswith(".sql"))
    return tuple(Migration(file.name, file.read_text()) for file in sources)


def known_schema() -> int:
    """Return the number of the schema that this version makes: its newest migration's."""
    return max(migration.number for migration in load_migrations())


async def migrate(database: Database) -> list[str]:
    """Apply pending migrations and return their names.

    A database with migrations of a newer version is left as it is, if it is compatible.

    Raises:
        ConfigError: The database has a modified migration, or one of a newer pubsubflow that is not
            compatible with this one.
    """
    while True:
        try:
            return await _migrate(database)
        except StoreConflict as error:
            # Daemons of the version before go on meanwhile, and lock the tables in another order.
            log.info("store.migration_restarted", reason=str(error))


async def _migrate(database: Database) -> list[str]:
    # One transaction for all: a failure leaves the schema of the version before.
    async with database.transaction() as connection:
        # Another daemon may migrate just now, for as long as it takes.
        await connection.execute("SET LOCAL lock_timeout = 0")
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        # Not a migration itself: it must be there before any of them is applied.
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS migration ("
            " name text PRIMARY KEY, checksum text NOT NULL,"
            " applied_at timestamptz NOT NULL DEFAULT now())"
        )
        applied = await _applied(connection)
        pending = _pending(applied)
        if pending:
            await connection.execute(
                "ALTER TABLE migration"
                " ADD COLUMN IF NOT EXISTS compatible_from int NOT NULL DEFAULT 1"
            )
        for migration in pending:
            await connection.execute(migration.text)
            await connection.execute(
                "INSERT INTO migration (name, checksum, compatible_from) VALUES ($1, $2, $3)",
                migration.name,
                migration.checksum,
                migration.compatible_from,
            )
            log.info("store.migration_applied", migration=migration.name)
    newer = _unknown(applied)
    if newer:
        log.info("store.schema_newer", schema=_number(newer[-1].name), known=known_schema())
    return [migration.name for migration in pending]


async def check(database: Database) -> list[str]:
    """Return the names of pending migrations; raises like `migrate`."""
    async with database.connection() as connection:
        exists = await connection.fetchval("SELECT to_regclass('migration') IS NOT NULL")
        return [m.name for m in _pending(await _applied(connection) if exists else {})]


async def _applied(connection: Connection) -> dict[str, AppliedMigration]:
    # By way of JSON, as the column is missing in a database of before it.
    rows = await connection.fetch(
        "SELECT name, checksum,"
        " coalesce((to_jsonb(migration) ->> 'compatible_from')::int, 1) AS compatible_from"
        " FROM migration"
    )
    return {row["name"]: AppliedMigration(**dict(row)) for row in rows}


def _pending(applied: Mapping[str, AppliedMigration]) -> list[Migration]:
    known = load_migrations()
    schema = max(migration.number for migration in known)
    for newer in _unknown(applied):
        if newer.compatible_from > schema:
            raise ConfigError(
                f"the database has migration {newer.name} of a newer pubsubflow, which works with "
                f"versions of schema {newer.compatible_from} or later, and this one is of schema "
                f"{schema}; upgrade pubsubflow"
            )
    for migration in known:
        before = applied.get(migration.name)
        if before is not None and before.checksum != migration.checksum:
            raise ConfigError(
                f"migration {migration.name} was changed after it was applied to this database; "
                "use the pubsubflow version that made it, or a fresh database"
            )
    return [migration for migration in known if migration.name not in applied]


def _unknown(applied: Mapping[str, AppliedMigration]) -> list[AppliedMigration]:
    """Return the migrations of newer versions, in order."""
    known = {migration.name for migration in load_migrations()}
    return [applied[name] for name in sorted(applied.keys() - known)]


def _number(name: str) -> int:
    return int(name.split("_", 1)[0])
