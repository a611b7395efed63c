"""Stack under test: a whole daemon with its own home, the workload DAGs, and a log of moments."""

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from pubsubflow.embedded import PostgresAddress, read_owner
from pubsubflow.embedded.home import Home
from pubsubflow.embedded.settings import DATABASE, PORT, SUPERUSER

DAGS = Path(__file__).parent / "dags"
_LIVE = ("queued", "running")


def post(url: str, path: str, body: Any) -> Any:
    """POST JSON to a daemon's API and return the JSON answer."""
    request = urllib.request.Request(
        f"{url}/api/v1{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


class Moments:
    """Log of moments that tasks write: `wait` for lines, then find them by name and phase."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")

    def close(self) -> None:
        """Close the log."""
        self._file.close()

    def clear(self) -> None:
        """Skip the lines so far."""
        self._file.seek(0, os.SEEK_END)

    def wait(self, count: int, seconds: float = 60) -> list[tuple[float, str, str]]:
        """Return the lines since `clear`, once there are `count`."""
        deadline = time.monotonic() + seconds
        text = b""
        while True:
            text += self._file.read()
            found = text.count(b"\n")
            if found >= count:
                whole = text[: text.rindex(b"\n")].decode()
                lines = [line.split() for line in whole.splitlines()]
                return [(float(moment), name, phase) for moment, name, phase in lines]
            if time.monotonic() > deadline:
                raise TimeoutError(f"{found} of {count} moments after {seconds} s")
            time.sleep(0.005)


class Stack:
    """`pubsubflow up` as a child process.

    Args:
        dags: Folder of DAG files.
        home: Kept when given, else a temporary one.
        environ: Further variables, such as settings.

    Attributes:
        dags: Folder of DAG files.
    """

    def __init__(
        self, dags: Path = DAGS, home: Path | None = None, environ: dict[str, str] | None = None
    ) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="psf-bench-")
        self.folder = Path(self._temporary.name)
        self.home = home or self.folder / "home"
        self.dags = dags
        self._environ = environ or {}
        log = self.folder / "moments"
        log.touch()
        self.moments = Moments(log)
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""
        self.ready_seconds = 0.0

    def configure(self, name: str, text: str) -> None:
        """Give the daemon a variable, before it starts."""
        self._environ[name] = text

    def start(self) -> None:
        """Start the daemon and wait until it is ready."""
        started = time.perf_counter()
        with (self.folder / "daemon.log").open("ab") as output:
            self.process = subprocess.Popen(
                [
                    Path(sys.executable).parent / "pubsubflow",
                    *("up", str(self.dags), "--home", str(self.home), "--port", "0"),
                ],
                env=os.environ | self._environ | {"BENCH_LOG": str(self.folder / "moments")},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        while not self._find_url():
            if self.process.poll() is not None:
                raise RuntimeError((self.folder / "daemon.log").read_text()[-2000:])
            time.sleep(0.005)
        self.ready_seconds = time.perf_counter() - started

    def _find_url(self) -> bool:
        try:
            owner = read_owner(self.home)
            if owner is None or owner.pid != self.process.pid or not owner.url:
                return False
            self.url = owner.url
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=5) as answer:
                return answer.status == 200
        except (OSError, urllib.error.URLError):
            return False

    def stop(self) -> float:
        """Stop the daemon; return how many seconds that took."""
        started = time.perf_counter()
        self.process.terminate()
        self.process.wait(60)
        return time.perf_counter() - started

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.moments.close()
        if self.process.poll() is None:
            self.stop()
        self._temporary.cleanup()

    def post(self, path: str, body: Any) -> Any:
        """POST JSON and return the JSON answer."""
        return post(self.url, path, body)

    def get(self, path: str) -> Any:
        """GET JSON."""
        with urllib.request.urlopen(f"{self.url}/api/v1{path}", timeout=60) as answer:
            return json.load(answer)

    def trigger(self, dag_id: str) -> str:
        """Start a run; return its id."""
        return self.post(f"/dags/{dag_id}/runs", {})["run_id"]

    def emit(self, uri: str, count: int = 1) -> Any:
        """Post events of one dataset."""
        return self.post("/datasets/events", [{"dataset": uri} for _ in range(count)])

    def wait_run(self, run_id: str, seconds: float = 600) -> Any:
        """Return a run once it has ended.

        Raises:
            TimeoutError: It has not in time.
        """
        deadline = time.monotonic() + seconds
        # The server answers before the client's own time is over.
        while (run := self.get(f"/runs/{run_id}/wait?timeout=30"))["state"] in _LIVE:
            if time.monotonic() > deadline:
                raise TimeoutError(f"run {run_id} is {run['state']} after {seconds:g} s")
        return run

    @property
    def nats_url(self) -> str:
        """Address of the daemon's NATS."""
        return f"nats://127.0.0.1:{(self.home / 'nats.port').read_text().strip()}"

    @property
    def nats_token(self) -> str:
        """Token of the daemon's NATS."""
        return Home(self.home).secrets().nats_token

    @property
    def dsn(self) -> str:
        """Address of the daemon's Postgres."""
        password = Home(self.home).secrets().postgres_password
        data = str(self.home / "postgres" / "data")
        return PostgresAddress(data, PORT, SUPERUSER, password, DATABASE).dsn

    def processes(self) -> list[psutil.Process]:
        """Return the daemon and everything below it."""
        root = psutil.Process(self.process.pid)
        return [root, *root.children(recursive=True)]

    def cpu_seconds(self) -> float:
        """Return the CPU time of all processes, the ended ones that were waited for included."""
        total = 0.0
        for process in self.processes():
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system + times.children_user + times.children_system
        return total

    def memory_megabytes(self) -> dict[str, float]:
        """Return the proportional set size by kind of process, and the total."""
        found: dict[str, float] = {}
        for process in self.processes():
            try:
                kind = process.name()
                found[kind] = found.get(kind, 0) + process.memory_full_info().pss / 2**20
            except psutil.NoSuchProcess:
                continue
        found["total"] = sum(found.values())
        return {kind: round(size, 1) for kind, size in found.items()}

    def memory_part_megabytes(self, part: str) -> dict[str, float]:
        """Return a part of the proportional set size by kind of process.

        Args:
            part: As Linux names it: `Pss_Anon`, `Pss_File`, `Pss_Shmem`.
        """
        found: dict[str, float] = {}
        for process in self.processes():
            try:
                kind = process.name()
                text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
            except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
                continue
            sizes = (line.split() for line in text.splitlines())
            kibibytes = sum(int(words[1]) for words in sizes if words[0] == f"{part}:")
            found[kind] = found.get(kind, 0) + kibibytes / 1024
        return found


def repeat(times: int, measure: Callable[[], float]) -> list[float]:
    """Measure several times, after one that does not count."""
    measure()
    return [measure() for _ in range(times)]
