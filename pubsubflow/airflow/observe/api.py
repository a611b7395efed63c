"""The REST API of a running Airflow 3, as tasks and triggers use it."""

from collections.abc import AsyncIterator
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import msgspec

from pubsubflow.hooks.http import HttpHook, HttpResponse
from pubsubflow.model.connections import Connection

OURS = "pubsubflow_event"
"""The key of `extra` with the id of an event of ours, in those that we post there."""
THEIRS = "airflow"
"""The key of `extra` with where an event comes from, in those that come from there."""

_PAGE = 100
_UNAUTHORIZED = 401


class AirflowApi:
    """A client of Airflow's REST API, version 2; an asynchronous context manager.

    Args:
        connection: Of type `http`, with the API server's URL, and either a secret `token` or user
            and password, for which the server gives one.
    """

    def __init__(self, connection: Connection) -> None:
        self._account = (connection.user, connection.password)
        self._token = connection.secrets.get("token")
        self._hook = HttpHook(connection)

    async def __aenter__(self) -> Self:
        await self._hook.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._hook.__aexit__(kind, error, trace)

    async def asset_id(self, asset: str) -> int | None:
        """Return the number of an asset by its URI or name; None if Airflow has none such."""
        # Patterns are those of LIKE, and a name may have its signs: what is found is compared.
        for field in ("uri", "name"):
            async for found in self._all("assets", {f"{field}_pattern": asset}):
                if found[field] == asset:
                    return int(found["id"])
        return None

    async def asset_events(self, asset: int, since: datetime) -> list[dict[str, Any]]:
        """Return the events of an asset from a moment on, in their order."""
        query = {"asset_id": str(asset), "timestamp_gte": since.isoformat()}
        found = self._all("assets/events", query | {"order_by": "timestamp"}, "asset_events")
        return [each async for each in found]

    async def ended_runs(self, dag_id: str, since: datetime) -> list[dict[str, Any]]:
        """Return the runs of a DAG that ended from a moment on, in the order of their ends."""
        query = {"end_date_gte": since.isoformat(), "order_by": "end_date"}
        found = self._all(f"dags/{dag_id}/dagRuns", query, "dag_runs")
        return [each async for each in found if each["end_date"]]

    async def post_asset_event(
        self, asset: int, extra: dict[str, Any], partition: str | None
    ) -> dict[str, Any]:
        """Add an event to an asset, and return it.

        Raises:
            HttpFailed: The server refuses it.
        """
        body: dict[str, Any] = {"asset_id": asset, "extra": extra}
        if partition is not None:
            body["partition_key"] = partition
        return await self._request("POST", "assets/events", json=body)

    async def _all(
        self, path: str, query: dict[str, str], key: str | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield all items of a list, page by page."""
        seen = 0
        while True:
            page = {**query, "limit": str(_PAGE), "offset": str(seen)}
            items = (await self._request("GET", path, params=page))[key or path]
            for each in items:
                yield each
            seen += len(items)
            if len(items) < _PAGE:
                return

    async def _request(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        """Send a request, with a new token where the old one is over.

        Raises:
            HttpFailed: The server refuses it.
        """
        response = await self._send(method, path, **more)
        if response.status == _UNAUTHORIZED and self._account[0] is not None:
            self._token = None
            response = await self._send(method, path, **more)
        return msgspec.json.decode(response.check().body, type=dict[str, Any])

    async def _send(self, method: str, path: str, **more: Any) -> HttpResponse:
        if self._token is None and self._account[0] is not None:
            name, password = self._account
            # A password is for this request alone; the others have the token.
            given = await self._hook.request(
                "POST", "auth/token", json={"username": name, "password": password or ""}
            )
            self._token = str(given.check().json()["access_token"])
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        return await self._hook.request(method, f"api/v2/{path}", headers=headers, **more)
