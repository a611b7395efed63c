"""Migrations: numbered, forward-only, applied under an advisory lock, recorded with checksums."""

import hashlib
from importlib import resources

import structlog
from msgspec import Struct

from pubsubflow.errors import ConfigError
from pubsubflow.store.database import Connection, Database

log = structlog.get_logger()
# Advisory locks of this package: 7233001 migrations, 7233002 catalog, 7233003 slots, 7233004
# retention, 7233005 source files.
_LOCK = 7_233_001


class Migration(Struct, frozen=True):
    """One file of `migrations/`."""

    name: str
    text: str

    @property
    def checksum(self) -> str:
        """Return the SHA-256 of the text, hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def load_migrations() -> list[Migration]:
    """Return all migrations in order."""
    folder = resources.files("pubsubflow.store") / "migrations"
    files = sorted(folder.iterdir(), key=lambda entry: entry.name)
    return [Migration(file.name, file.read_text()) for file in files if file.name[0].isdigit()]


async def migrate(database: Database) -> list[str]:
    """Apply pending migrations and return their names.

    Raises:
        ConfigError: The database has migrations of a newer or a modified pubsubflow.
    """
    # One transaction for all: a failure leaves the schema of the version before.
    async with database.transaction() as connection:
        # Another daemon may migrate just now, for as long as it takes.
        await connection.execute("SET LOCAL lock_timeout = 0")
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS migration ("
            " name text PRIMARY KEY, checksum text NOT NULL,"
            " applied_at timestamptz NOT NULL DEFAULT now())"
        )
        pending = _pending(await _applied(connection))
        for migration in pending:
            await connection.execute(migration.text)
            await connection.execute(
                "INSERT INTO migration (name, checksum) VALUES ($1, $2)",
                migration.name,
                migration.checksum,
            )
            log.info("store.migration_applied", migration=migration.name)
    return [migration.name for migration in pending]


async def check(database: Database) -> list[str]:
    """Return the names of pending migrations; raises like `migrate`."""
    async with database.connection() as connection:
        exists = await connection.fetchval("SELECT to_regclass('migration') IS NOT NULL")
        return [m.name for m in _pending(await _applied(connection) if exists else {})]


async def _applied(connection: Connection) -> dict[str, str]:
    rows = await connection.fetch("SELECT name, checksum FROM migration")
    return {row["name"]: row["checksum"] for row in rows}


def _pending(applied: dict[str, str]) -> list[Migration]:
    known = load_migrations()
    unknown = sorted(applied.keys() - {migration.name for migration in known})
    if unknown:
        raise ConfigError(
            f"the database has migration {unknown[-1]} of a newer pubsubflow; upgrade pubsubflow"
        )
    for migration in known:
        if applied.get(migration.name, migration.checksum) != migration.checksum:
            raise ConfigError(
                f"migration {migration.name} was changed after it was applied to this database; "
                "use the pubsubflow version that made it, or a fresh database"
            )
    return [migration for migration in known if migration.name not in applied]
