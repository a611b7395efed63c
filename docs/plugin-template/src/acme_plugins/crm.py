"""A connection type, its hook, and an operator that uses it."""

from typing import Any

from pubsubflow import Connection, ConnectionField, ConnectionType, Context, Operator
from pubsubflow.hooks.connection import read_connection
from pubsubflow.hooks.http import HttpHook

CRM = ConnectionType(
    name="crm",
    help="Acme's CRM",
    schemes=("https", "http"),
    fields=(
        ConnectionField(name="uri", kind="uri", required=True, help="https://crm.example.com"),
        ConnectionField(name="token", secret=True, required=True, help="Of an integration"),
        ConnectionField(name="tenant", required=True, help="Whose data it is"),
    ),
    check="acme_plugins.crm:check",
)


async def check(connection: Connection) -> str:
    """Return one line; raise if the connection cannot be used."""
    async with HttpHook(connection) as http:
        (await http.request("GET", "/health")).check()
    return f"the CRM of {connection.extra['tenant']} answers"


class CrmExportOperator(Operator):
    """Exports the rows of a table."""

    template_fields = ("table",)

    def __init__(self, *, table: str, connection: str = "crm_default", **kwargs: Any) -> None:
        self.table, self.connection = table, connection
        super().__init__(**kwargs)

    async def execute(self, ctx: Context) -> list[dict[str, Any]]:
        connection = await read_connection(ctx, self.connection)
        async with HttpHook(connection) as http:
            response = await http.request(
                "GET", f"/export/{self.table}", params={"tenant": connection.extra["tenant"]}
            )
        return response.check().json()
