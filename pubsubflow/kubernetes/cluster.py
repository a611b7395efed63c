"""A client of the API of Kubernetes: single requests, and the watch of one pod."""

import os
from collections.abc import AsyncGenerator, Mapping
from importlib import import_module
from typing import Any, Self

import anyio
import msgspec

from pubsubflow.errors import ConfigError, PubsubflowError
from pubsubflow.kubernetes.options import KubernetesSettings
from pubsubflow.kubernetes.pods import Manifest

GONE, CONFLICT, NOT_FOUND, FORBIDDEN, TOO_MANY = 410, 409, 404, 403, 429
_FAILED, _BROKEN = 400, 500
# With their pauses some three seconds: who calls knows better how to wait longer.
_TRIES = 5
_FIRST_PAUSE_SECONDS = 0.2
_MOST_PAUSE_SECONDS = 10.0
_REQUEST_SECONDS = 30.0
# As the clients of Kubernetes have it: a server that stops need not wait long.
_WATCH_SECONDS = 300
# To connect, and between two lines: a server sends a bookmark about once a minute.
_SILENT_SECONDS = (30.0, 90.0)
_AUTH = ["BearerToken"]
_INSIDE = "KUBERNETES_SERVICE_HOST"


class ClusterRefused(PubsubflowError):  # noqa: N818 - the server's answer
    """The server refuses a request, or cannot be reached.

    Args:
        status: HTTP status; 0 if it was not reached.
        message: Why, for people.
        pause: After how many seconds to try again, where the server says so.
    """

    def __init__(self, status: int, message: str, pause: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.pause = pause

    @property
    def passes(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status in (0, TOO_MANY) or self.status >= _BROKEN


class Cluster:
    """The pods and secrets of one namespace.

    Args:
        api: The library's client.
        namespace: Their namespace.

    Attributes:
        namespace: Likewise.
    """

    def __init__(self, api: Any, namespace: str) -> None:
        self._api = api
        broken = import_module("aiohttp").ClientError
        self._away: tuple[type[Exception], ...] = (
            OSError,
            TimeoutError,
            broken,
            msgspec.DecodeError,
        )
        self.namespace = namespace
        self._path = f"/api/v1/namespaces/{namespace}"

    @classmethod
    async def connect(cls, settings: KubernetesSettings) -> Self:
        """Return a client by the credentials of the settings, of this pod or of the user.

        Raises:
            ConfigError: The extra is not installed, or credentials are missing.
        """
        try:
            client = import_module("kubernetes_asyncio.client")
            config = import_module("kubernetes_asyncio.config")
        except ImportError as error:
            raise ConfigError(
                "the executor kubernetes needs a library: pip install 'pubsubflow[kubernetes]'"
            ) from error
        found = client.Configuration()
        try:
            if settings.kubeconfig is None and not settings.context and _INSIDE in os.environ:
                config.load_incluster_config(client_configuration=found)
            else:
                await config.load_kube_config(
                    config_file=None if settings.kubeconfig is None else str(settings.kubeconfig),
                    context=settings.context or None,
                    client_configuration=found,
                )
        except Exception as error:
            raise ConfigError(
                f"executors.kubernetes: no credentials of a cluster: {error}; name a kubeconfig, "
                "or run the worker in a pod with a service account"
            ) from error
        # A watch keeps a connection for each attempt.
        found.connection_pool_maxsize = 0
        return cls(client.ApiClient(found), settings.namespace)

    def beside(self, namespace: str) -> "Cluster":
        """Return another namespace, by the same connections."""
        return Cluster(self._api, namespace)

    async def close(self) -> None:
        """Close its connections."""
        await self._api.close()

    async def create(self, kind: str, body: Manifest) -> Manifest:
        """Create an object; `kind` is `pods` or `secrets`.

        Raises:
            ClusterRefused: It exists (409), is invalid, or cannot be created now.
        """
        return await self._request("POST", f"/{kind}", body=body)

    async def get(self, kind: str, name: str) -> Manifest:
        """Return an object.

        Raises:
            ClusterRefused: It is not there (404), or the server is away.
        """
        return await self._request("GET", f"/{kind}/{name}")

    async def find_pod(self, name: str) -> tuple[Manifest | None, str]:
        """Return a pod, if there is one, and the version of the whole from which to watch it.

        Raises:
            ClusterRefused: The server is away.
        """
        # Its own version is that of its last change: a server may have forgotten what came since.
        page = await self._request("GET", "/pods", {"fieldSelector": f"metadata.name={name}"})
        items = page.get("items") or [None]
        return items[0], page["metadata"]["resourceVersion"]

    async def own(self, name: str, owner: Manifest) -> None:
        """Make the pod of a secret its owner: it goes with the pod.

        Raises:
            ClusterRefused: It cannot be changed.
        """
        reference = {"apiVersion": "v1", "kind": "Pod", "name": name}
        reference["uid"] = owner["metadata"]["uid"]
        change = {"metadata": {"ownerReferences": [reference]}}
        kind = "application/merge-patch+json"
        await self._request("PATCH", f"/secrets/{name}", body=change, content_type=kind)

    async def delete(self, kind: str, name: str, grace_seconds: int | None = None) -> None:
        """Delete an object; nothing happens if it is not there.

        Raises:
            ClusterRefused: It cannot be deleted now.
        """
        query = {} if grace_seconds is None else {"gracePeriodSeconds": str(grace_seconds)}
        try:
            await self._request("DELETE", f"/{kind}/{name}", query)
        except ClusterRefused as error:
            if error.status != NOT_FOUND:
                raise

    async def list_all(self, kind: str, selector: str) -> list[Manifest]:
        """Return the objects that a label selector names, in pages.

        Raises:
            ClusterRefused: The server is away.
        """
        items: list[Manifest] = []
        whole = query = {"labelSelector": selector, "limit": "500"}
        while True:
            try:
                page = await self._request("GET", f"/{kind}", query)
            except ClusterRefused as error:
                if error.status != GONE or query is whole:
                    raise
                # The list has changed too much since its first page.
                items, query = [], whole
                continue
            items += page.get("items") or []
            more = (page.get("metadata") or {}).get("continue")
            if not more:
                return items
            query = {**whole, "continue": more}

    async def read_log(self, name: str, container: str, lines: int) -> str:
        """Return the last lines that a container wrote.

        Raises:
            ClusterRefused: There are none, or the server is away.
        """
        query = {"container": container, "tailLines": str(lines)}
        data = await self._send("GET", f"/pods/{name}/log", query)
        return data.decode(errors="replace")

    async def watch_pod(self, name: str, version: str) -> AsyncGenerator[tuple[str, Manifest]]:
        """Yield the changes of a pod after a version: `ADDED`, `MODIFIED` or `DELETED`, and it.

        It ends with the server's patience; the caller gets the pod anew and goes on.

        Raises:
            ClusterRefused: The version is too old (410), or the server is away.
        """
        query = {
            "watch": "true",
            "fieldSelector": f"metadata.name={name}",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(_WATCH_SECONDS),
        }
        try:
            response = await self._call("GET", "/pods", query, seconds=_SILENT_SECONDS)
        except self._away as error:
            raise ClusterRefused(0, f"the API of Kubernetes cannot be reached: {error}") from error
        try:
            if response.status >= _FAILED:
                raise _failed(response.status, await response.read(), response.headers)
            async for line in _lines(response.content):
                event = msgspec.json.decode(line)
                if event["type"] == "ERROR":
                    status = event["object"]
                    raise ClusterRefused(int(status.get("code", 0)), status.get("message", ""))
                if event["type"] != "BOOKMARK":
                    yield event["type"], event["object"]
        except self._away as error:
            raise ClusterRefused(0, f"the watch broke off: {error}") from error
        finally:
            response.close()

    async def _request(
        self, method: str, path: str, query: Mapping[str, str] | None = None, **more: Any
    ) -> Manifest:
        found: Manifest = msgspec.json.decode(await self._send(method, path, query, **more))
        return found

    async def _send(
        self, method: str, path: str, query: Mapping[str, str] | None = None, **more: Any
    ) -> bytes:
        """Send a request, again when the server is away or has too much to do."""
        pause = _FIRST_PAUSE_SECONDS
        for left in reversed(range(_TRIES)):
            try:
                response = await self._call(method, path, query, **more)
                data: bytes = await response.read()
                if response.status < _FAILED:
                    return data
                failure = _failed(response.status, data, response.headers)
            except self._away as error:
                failure = ClusterRefused(0, f"the API of Kubernetes cannot be reached: {error}")
            if not failure.passes or not left:
                raise failure
            await anyio.sleep(min(max(failure.pause, pause), _MOST_PAUSE_SECONDS))
            pause *= 2
        raise AssertionError

    async def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        *,
        body: Manifest | None = None,
        content_type: str = "application/json",
        seconds: float | tuple[float, float] = _REQUEST_SECONDS,
    ) -> Any:
        return await self._api.call_api(
            self._path + path,
            method,
            query_params=list((query or {}).items()),
            header_params={"Content-Type": content_type, "Accept": "application/json, */*"},
            body=body,
            auth_settings=_AUTH,
            _preload_content=False,
            _request_timeout=seconds,
        )


async def _lines(content: Any) -> AsyncGenerator[bytes]:
    """Yield lines of any length; the library's own are limited, and a pod can be large."""
    rest = b""
    async for data in content.iter_any():
        *whole, rest = (rest + data).split(b"\n")
        for each in whole:
            yield each


def _failed(status: int, data: bytes, headers: Mapping[str, str]) -> ClusterRefused:
    try:
        message = msgspec.json.decode(data).get("message") or f"status {status}"
    except (msgspec.DecodeError, AttributeError):
        message = f"status {status}"
    pause = headers.get("Retry-After", "")
    return ClusterRefused(status, message, float(pause) if pause.isdigit() else 0.0)
