"""Docker hook: containers of a Docker engine, over its HTTP API.

Source: Docker Engine API v1.44, https://docs.docker.com/reference/api/engine/.
"""

import base64
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import msgspec

from pubsubflow.errors import PubsubflowError
from pubsubflow.hooks.container import Container
from pubsubflow.model.connections import Connection
from pubsubflow.model.lazy_import import lazy_module

if TYPE_CHECKING:
    import aiohttp
else:
    aiohttp = lazy_module("aiohttp")

LOCAL = "unix:///var/run/docker.sock"
_VERSION = "v1.44"
_HEADER_BYTES = 8
_STDERR = 2
_FAILED = 400
_NOT_FOUND = 404


class DockerFailed(PubsubflowError):  # noqa: N818 - the engine's answer
    """The engine refuses a request.

    Args:
        status: Its status.
        message: The engine's reason.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class DockerHook:
    """A client of a Docker engine; an asynchronous context manager.

    Args:
        connection: Of type `docker`; None for this machine's engine.
    """

    def __init__(self, connection: Connection | None = None) -> None:
        uri = connection.uri if connection is not None and connection.uri else LOCAL
        parts = urlsplit(uri)
        self._socket = parts.path if parts.scheme == "unix" else None
        scheme = {"unix": "http", "tcp": "http"}.get(parts.scheme, parts.scheme)
        self._base = f"{scheme}://{parts.netloc or 'docker'}/{_VERSION}"
        extra = {} if connection is None else connection.extra
        self._seconds = float(extra.get("timeout", 30))
        self._registry = _registry_header(connection)

    async def __aenter__(self) -> Self:
        connector = aiohttp.UnixConnector(self._socket) if self._socket else aiohttp.TCPConnector()
        timeout = aiohttp.ClientTimeout(total=None, connect=self._seconds)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._session.close()

    async def ping(self) -> str:
        """Return the engine's version."""
        return str((await self._call("GET", "/version")).get("Version"))

    async def find(self, label: str) -> str | None:
        """Return the id of a container, running or not, that has a label."""
        filters = msgspec.json.encode({"label": [label]}).decode()
        params = {"all": "true", "filters": filters}
        found = await self._call("GET", "/containers/json", params=params)
        return str(found[0]["Id"]) if found else None

    async def pull(self, image: str) -> None:
        """Pull an image.

        Raises:
            DockerFailed: The registry refuses it, or has none of that name.
        """
        # A name without a tag would pull all of them.
        name = image if "@" in image or ":" in image.rpartition("/")[2] else f"{image}:latest"
        path, params = f"{self._base}/images/create", {"fromImage": name}
        async with self._session.post(path, params=params, headers=self._registry) as response:
            await _check(response)
            async for line in response.content:
                progress = msgspec.json.decode(line) if line.strip() else {}
                if "error" in progress:
                    raise DockerFailed(
                        response.status, f"{image} cannot be pulled: {progress['error']}"
                    )

    async def create(self, container: Container, name: str | None = None) -> str:
        """Create a container, and return its id.

        Raises:
            DockerFailed: The engine refuses it; status 404 if it lacks the image.
        """
        params = {"name": name} if name else {}
        document = container.document()
        made = await self._call("POST", "/containers/create", params=params, json=document)
        return str(made["Id"])

    async def start(self, container: str) -> None:
        """Start a container; one that has been started is left as it is."""
        await self._call("POST", f"/containers/{container}/start")

    async def logs(self, container: str) -> AsyncIterator[tuple[bool, str]]:
        """Yield the lines of a container's output until it ends: whether of stderr, the line."""
        params = {"follow": "true", "stdout": "true", "stderr": "true"}
        path = f"{self._base}/containers/{container}/logs"
        async with self._session.get(path, params=params) as response:
            await _check(response)
            rest = {False: b"", True: b""}
            async for is_error, data in _frames(response.content):
                *lines, rest[is_error] = (rest[is_error] + data).split(b"\n")
                for line in lines:
                    yield is_error, line.decode(errors="replace").rstrip("\r")
            for is_error, line in rest.items():
                if line:
                    yield is_error, line.decode(errors="replace").rstrip("\r")

    async def wait(self, container: str) -> int:
        """Wait until a container has ended, and return its exit code."""
        return int((await self._call("POST", f"/containers/{container}/wait"))["StatusCode"])

    async def inspect(self, container: str) -> dict[str, Any]:
        """Return what the engine knows of a container."""
        found: dict[str, Any] = await self._call("GET", f"/containers/{container}/json")
        return found

    async def reason(self, container: str) -> str:
        """Return what else the engine says of a container's end, to follow its exit code."""
        state = (await self.inspect(container)).get("State", {})
        if state.get("OOMKilled"):
            return ", as it used more memory than it may"
        return f": {state['Error']}" if state.get("Error") else ""

    async def stop(self, container: str, seconds: int) -> None:
        """Stop a container: SIGTERM, and SIGKILL after so many seconds."""
        await self._call("POST", f"/containers/{container}/stop", params={"t": str(seconds)})

    async def remove(self, container: str) -> None:
        """Remove a container, by force if it runs; one that is gone is fine."""
        try:
            await self._call("DELETE", f"/containers/{container}", params={"force": "true"})
        except DockerFailed as error:
            if error.status != _NOT_FOUND:
                raise

    async def _call(self, method: str, path: str, **more: Any) -> Any:
        async with self._session.request(method, f"{self._base}{path}", **more) as response:
            await _check(response)
            data = await response.read()
            return msgspec.json.decode(data) if data else None


async def _check(response: "aiohttp.ClientResponse") -> None:
    if response.status < _FAILED:
        return
    data = await response.read()
    try:
        reason = msgspec.json.decode(data)["message"]
    except (msgspec.DecodeError, KeyError, TypeError):
        reason = data.decode(errors="replace")[:300]
    raise DockerFailed(response.status, f"the Docker engine refuses it: {reason}")


async def _frames(content: "aiohttp.StreamReader") -> AsyncIterator[tuple[bool, bytes]]:
    """Yield the frames of a multiplexed stream: whether of stderr, and the data."""
    while True:
        try:
            header = await content.readexactly(_HEADER_BYTES)
            data = await content.readexactly(int.from_bytes(header[4:], "big"))
        except EOFError:
            return
        yield header[0] == _STDERR, data


def _registry_header(connection: Connection | None) -> dict[str, str]:
    if connection is None or "registry_password" not in connection.secrets:
        return {}
    account = {
        "username": connection.extra.get("registry_user", ""),
        "password": connection.secrets["registry_password"],
    }
    return {"X-Registry-Auth": base64.urlsafe_b64encode(msgspec.json.encode(account)).decode()}


async def check(connection: Connection) -> str:
    """Return the version of the engine."""
    async with DockerHook(connection) as docker:
        return f"Docker engine {await docker.ping()}"
