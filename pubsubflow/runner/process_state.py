"""Process state: what a sync task changes or leaves behind is undone before the next task."""

import contextlib
import ctypes
import locale
import operator
import os
import signal
import socket
import sys
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any, NamedTuple

_PR_SET_CHILD_SUBREAPER = 36
_ALL = slice(None)
_SIGNALS = [
    number
    for number in signal.Signals
    if number not in {signal.SIGKILL, signal.SIGSTOP} and number in signal.valid_signals()
]


class ProcessState:
    """The state of this process as it is now.

    It covers the working directory, environment variables, locale, the default timeout of sockets,
    `sys.path`, `sys.argv` and the recursion limit, and in a process that runs one task at a time
    the umask, signal handlers and the timer. Modules that a task patches are not covered.

    Args:
        alone: Whether one task runs at a time, in the main thread: only that one may set signal
            handlers, and reading the umask means changing it for a moment.
    """

    def __init__(self, *, alone: bool) -> None:
        parts = _PARTS + _PARTS_ALONE if alone else _PARTS
        self._parts = [(part, part.read()) for part in parts]

    def restore(self) -> list[str]:
        """Restore what has changed since, and return what that is, in words for a log."""
        restored = []
        for part, value in self._parts:
            if part.read() != value:
                restored.append(part.name)
                with contextlib.suppress(OSError, ValueError):  # such as a folder that is gone
                    part.write(value)
        return restored


class _Part(NamedTuple):
    name: str
    read: Callable[[], Any]
    write: Callable[[Any], Any]


def _directory() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109 - a text to compare
    except FileNotFoundError:
        return None


def _set_directory(directory: str | None) -> None:
    if directory is not None:
        os.chdir(directory)


def _set_environment(variables: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(variables)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _handlers() -> list[Any]:
    return [signal.getsignal(number) for number in _SIGNALS]


def _set_handlers(handlers: list[Any]) -> None:
    for number, handler in zip(_SIGNALS, handlers, strict=True):
        # None stands for a handler that Python did not set, and cannot set again.
        if handler is not None and signal.getsignal(number) is not handler:
            signal.signal(number, handler)


_PARTS = (
    _Part("working directory", _directory, _set_directory),
    _Part("environment", lambda: dict(os.environ), _set_environment),
    _Part(
        "locale",
        lambda: locale.setlocale(locale.LC_ALL),
        lambda name: locale.setlocale(locale.LC_ALL, name),
    ),
    _Part("socket timeout", socket.getdefaulttimeout, socket.setdefaulttimeout),
    _Part(
        "sys.argv", lambda: list(sys.argv), lambda value: operator.setitem(sys.argv, _ALL, value)
    ),
    _Part(
        "sys.path", lambda: list(sys.path), lambda value: operator.setitem(sys.path, _ALL, value)
    ),
    _Part("recursion limit", sys.getrecursionlimit, sys.setrecursionlimit),
)
_PARTS_ALONE = (
    _Part("umask", _umask, os.umask),
    _Part("signal handlers", _handlers, _set_handlers),
    _Part(
        "timer",
        lambda: signal.getitimer(signal.ITIMER_REAL)[0] > 0,
        lambda _: signal.setitimer(signal.ITIMER_REAL, 0),
    ),
)


def adopt_orphans() -> None:
    """Make this process the parent of descendants whose own parent has ended (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def kill_descendants() -> int:
    """Kill all child processes of this one, and theirs; return how many were running.

    Only on Linux, after `adopt_orphans`: a child's children become ours when it is gone.
    """
    killed = 0
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return killed
        if pid:  # it had ended by itself
            continue
        children = _children()
        if not children:
            return killed
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child, 0)
        killed += len(children)


def kill_orphans(known: Container[int]) -> int:
    """Kill the child processes that this one did not fork, and theirs; return how many.

    After `adopt_orphans`: they are descendants of a child that has ended, whatever session or
    process group they have made for themselves.

    Args:
        known: Those that it did fork.
    """
    killed = 0
    while True:
        orphans = [pid for pid in _children() if pid not in known]
        if not orphans:
            return killed
        for pid in orphans:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
        killed += len(orphans)


def _children() -> list[int]:
    """Return the child processes of all threads."""
    found: list[int] = []
    for file in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, file.read_text().split())
    return found
