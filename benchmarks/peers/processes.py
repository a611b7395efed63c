"""Processes of a peer: started in sessions of their own, measured, stopped, killed as a whole."""

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import psutil

_POLL_SECONDS = 0.01
_STOP_SECONDS = 20
_LINES_OF_LOG = 30


class Group:
    """Processes that were started together, and all that they have started.

    Args:
        logs: Folder for what they print, one file a process.
    """

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._roots: dict[str, subprocess.Popen[bytes]] = {}

    def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        cwd: Path,
        environ: dict[str, str] | None = None,
        user: int | None = None,
    ) -> None:
        """Start a process, as the leader of a session."""
        with (self._logs / f"{name}.log").open("ab") as log:
            self._roots[name] = subprocess.Popen(
                command,
                cwd=cwd,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                user=user,
            )

    def wait_for(self, condition: Callable[[], bool], seconds: float) -> None:
        """Wait until a condition holds.

        Raises:
            RuntimeError: A process has ended before; the text has the end of its log.
            TimeoutError: It does not hold in time.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            for name, process in self._roots.items():
                if process.poll() is not None:
                    raise RuntimeError(f"{name} ended with {process.returncode}: {self._end(name)}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"not ready after {seconds} s: {', '.join(self._roots)}")
            time.sleep(_POLL_SECONDS)

    def _end(self, name: str) -> str:
        lines = (self._logs / f"{name}.log").read_text(errors="replace").splitlines()
        return "\n".join(lines[-_LINES_OF_LOG:])

    def processes(self) -> list[psutil.Process]:
        """Return all processes: descendants, and those of their sessions that lost their parent."""
        roots = {process.pid for process in self._roots.values()}
        found: dict[int, psutil.Process] = {}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                if process.pid in roots or os.getsid(process.pid) in roots:
                    found[process.pid] = process
        for pid in roots:
            with contextlib.suppress(psutil.NoSuchProcess):
                found |= {each.pid: each for each in psutil.Process(pid).children(recursive=True)}
        return list(found.values())

    def stop(self) -> None:
        """Have each end in an orderly way, the last started first; kill what does not in 20 s."""
        left = self.processes()
        for process in reversed(self._roots.values()):
            process.terminate()
        for process in self._roots.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_SECONDS)
        _, alive = psutil.wait_procs(left, 2)
        _kill(alive)
        self._reap()

    def kill(self) -> None:
        """Kill all with signal 9, until none is left."""
        while left := self.processes():
            _kill(left)
            self._reap()
            psutil.wait_procs(left, 5)

    def _reap(self) -> None:
        for process in self._roots.values():
            process.wait()
        self._roots.clear()


def _kill(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def cpu_seconds(processes: Iterable[psutil.Process]) -> float:
    """Return the CPU time of processes, and of those that they have waited for."""
    total = 0.0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += sum(process.cpu_times()[:4])
    return total


def memory_megabytes(processes: Iterable[psutil.Process]) -> float:
    """Return the proportional set size of processes; their own memory where there is none."""
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            found = process.memory_full_info()
            total += getattr(found, "pss", found.uss)
    return round(total / 2**20, 1)
