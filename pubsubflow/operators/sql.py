"""The operator that executes SQL, whose values are bound and never formatted."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from importlib import import_module
from typing import Any

from pubsubflow.authoring.runtime.context import Context
from pubsubflow.authoring.runtime.sql_text import Parameters, bound_names
from pubsubflow.authoring.source_location import definition_error
from pubsubflow.authoring.tasks.operators import Operator
from pubsubflow.authoring.tasks.wait_target import is_template
from pubsubflow.authoring.validation import Seconds, seconds
from pubsubflow.errors import InvalidInput
from pubsubflow.hooks.connection import read_connection
from pubsubflow.hooks.sql import SqlRows, open_sql
from pubsubflow.model.connections import Connection

_PLAIN = (type(None), bool, int, float, str, bytes)
# Airflow's users write quotes around a value; a parameter needs none.
_QUOTED = re.compile(r"'(:psf_\d+)'")


class SqlOperator(Operator):
    """Executes SQL in one transaction; the result is the rows of the last statement, as dicts.

    A `{{ … }}` in a statement becomes a bound parameter: its value, wherever it comes from, is
    never read as SQL. `{{ name | identifier }}` is the quoted name of a table or column.

    Args:
        sql: A statement, a list of them, or the name of a file `.sql` beside the DAG file.
        parameters: Values of `:name` in the statements, or of `$1` (PostgreSQL) and `?` (SQLite).
        connection: A connection of type `postgres`, `sqlite` or `sqlalchemy`.
        limit: How many rows the result has at most; the log says if there were more.
        statement_timeout: How long one statement may take. It is cancelled on the server then, and
            when the task is.
    """

    template_fields = ("parameters",)
    template_ext = (".sql",)
    bound_fields = ("sql",)

    def __init__(
        self,
        *,
        sql: str | Sequence[str],
        parameters: Parameters = None,
        connection: str | Connection = "sql_default",
        limit: int = 1000,
        statement_timeout: Seconds | None = None,
        **kwargs: Any,
    ) -> None:
        if isinstance(sql, str) and not sql.strip():
            raise definition_error("sql is empty", task_id=kwargs.get("task_id"))
        self.sql, self.parameters, self.connection, self.limit = sql, parameters, connection, limit
        if isinstance(statement_timeout, timedelta | int | float):
            statement_timeout = seconds(statement_timeout)
        self.statement_timeout = statement_timeout
        super().__init__(**kwargs)

    async def execute(self, ctx: Context) -> list[dict[str, Any]]:
        """Execute the statements."""
        connection = await read_connection(ctx, self.connection)
        statements = [self.sql] if isinstance(self.sql, str) else list(self.sql)
        bound = [self._bound(each, ctx) for each in statements]
        rows = SqlRows()
        async with open_sql(connection, self.statement_timeout) as session:
            for sql, parameters in bound:
                rows = await session.execute(sql, parameters, self.limit)
                ctx.log.info("sql.executed", rows=rows.count)
        if rows.truncated:
            ctx.log.warning("sql.rows_left_out", limit=self.limit)
        for uri in ctx.task.outlets:
            ctx.emit(uri, extra={} if rows.count is None else {"rows": rows.count})
        return [dict(zip(rows.columns, map(_plain, row), strict=True)) for row in rows.rows]

    def _bound(self, sql: str, ctx: Context) -> tuple[str, Parameters]:
        """Return a statement with a parameter in the place of each template, and all values."""
        if not is_template(sql):
            return sql, self.parameters
        templates = import_module("pubsubflow.authoring.runtime.templates")
        text, values = templates.render_bound(sql, ctx)
        text = _QUOTED.sub(r"\1", text)
        if not values.keys() <= bound_names(text):
            raise InvalidInput(
                f"a template stands inside of a text or a comment: {sql!r}; write || around it, "
                "such as '%' || {{ … }} || '%'"
            )
        if values and self.parameters and not isinstance(self.parameters, Mapping):
            raise InvalidInput("with templates in the sql, parameters must be a mapping of names")
        return text, {**dict(self.parameters or {}), **values} if values else self.parameters


def _plain(value: Any) -> Any:
    """Return a column's value as a result may have it; what is not becomes its text."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, datetime):
        return value if value.tzinfo is not None else value.isoformat()
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
