"""Senders of events: over HTTP from the suite's process, or by a peer's own client library."""

import http.client
import json
import select
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

_SECONDS = 60
_END_SECONDS = 30


class RefusedError(OSError):
    """A peer answered with an error."""


class Http:
    """JSON over kept connections, one a thread; reconnects after an error or the server's end.

    Args:
        port: On 127.0.0.1.
        headers: Of each request.
    """

    def __init__(self, port: int, headers: Mapping[str, str] | None = None) -> None:
        self._port = port
        self.headers = {"Content-Type": "application/json", **(headers or {})}
        self._kept = threading.local()
        self._made: list[http.client.HTTPConnection] = []

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Return the JSON answer of a request; None if it has no body.

        Raises:
            OSError: The server is away, breaks off or refuses.
        """
        connection = self._connection()
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, self.headers)
            answer = connection.getresponse()
            text = answer.read()
        except (http.client.HTTPException, OSError) as error:
            connection.close()  # the next request connects again
            raise RefusedError(f"{method} {path}: {error!r}") from error
        if answer.status >= 300:
            raise RefusedError(f"{method} {path}: {answer.status} {text[:500]!r}")
        return json.loads(text) if text else None

    def close(self) -> None:
        """Close the connections of all threads."""
        for connection in self._made:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None = getattr(self._kept, "connection", None)
        if connection is None:
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_SECONDS)
            self._kept.connection = connection
            self._made.append(connection)
        # A server ends a connection that was idle for long; the next request must not fail of it.
        elif connection.sock is not None and select.select([connection.sock], [], [], 0)[0]:
            connection.close()
        return connection

    def answers(self, path: str) -> bool:
        """Return whether a GET succeeds."""
        try:
            self.call("GET", path)
        except (OSError, ValueError):
            return False
        return True


def rate_of(http: Http, path: str, body: Callable[[], Any], count: int, clients: int) -> float:
    """Return how many posts a second so many threads make, with a connection each.

    Args:
        http: Client of the server.
        path: Of all posts.
        body: Makes the body of a post.
        count: Posts of all threads together.
        clients: Threads.

    Raises:
        OSError: A request failed.
    """
    left, errors = iter(range(count)), list[OSError]()
    lock = threading.Lock()

    def client() -> None:
        try:
            while True:
                with lock:
                    if next(left, None) is None:
                        return
                http.call("POST", path, body())
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    if errors:
        raise errors[0]
    return count / seconds


class ClientProgram:
    """A program in the peer's environment that sends by the peer's library, for peers without HTTP.

    It reads orders as lines of JSON and answers each with one: `{"ok": …}` or `{"error": …}`.

    Args:
        command: The program.
        environ: Its variables.
        log: File for what it prints to stderr.
    """

    def __init__(self, command: Sequence[str], environ: dict[str, str], log: Path) -> None:
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                env=environ,
                cwd=Path(command[-1]).parent if Path(command[-1]).is_file() else None,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
            )
        self._log = log

    def call(self, **order: Any) -> Any:
        """Return the answer to an order.

        Raises:
            RefusedError: It failed, or the program ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RefusedError(f"the client ended: {self._log.read_text()[-2000:]}")
        answer = json.loads(line)
        if "error" in answer:
            raise RefusedError(answer["error"])
        return answer["ok"]

    def close(self) -> None:
        """End the program; kill it if it does not end by itself."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
