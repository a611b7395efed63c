"""The schema of a database, described so that two of them can be compared."""

import asyncpg

_PARTS = {
    "columns": """
        SELECT table_name, column_name, data_type, is_nullable, column_default, is_identity,
               generation_expression
        FROM information_schema.columns WHERE table_schema = 'public'
    """,
    "indices": "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
        FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    """,
    "functions": """
        SELECT proname, proname, pg_get_functiondef(oid)
        FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    """,
    "relations": """
        SELECT relname, relkind::text, reloptions::text, pg_get_partkeydef(oid)
        FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'S')
    """,
    "views": "SELECT viewname, definition FROM pg_views WHERE schemaname = 'public'",
}


async def describe_schema(dsn: str) -> dict[str, set[tuple]]:
    """Return what a database has of each kind, whatever the order in which it was made."""
    connection = await asyncpg.connect(dsn)
    try:
        return {
            part: {tuple(row) for row in await connection.fetch(query)}
            for part, query in _PARTS.items()
        }
    finally:
        await connection.close()
