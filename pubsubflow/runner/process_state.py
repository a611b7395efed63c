"""Process state: what a task changes or leaves behind is undone before the next task."""

import _signal  # type: ignore[import-not-found]
import contextlib
import ctypes
import decimal
import locale
import operator
import os
import random
import signal
import socket
import sys
import warnings
from collections.abc import Callable, Container, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

_PR_SET_CHILD_SUBREAPER = 36
_ALL = slice(None)
_SEED_BYTES = 32
_SIGNALS = [
    number
    for number in signal.Signals
    if number not in {signal.SIGKILL, signal.SIGSTOP} and number in signal.valid_signals()
]
_NUMBERS = [int(number) for number in _SIGNALS]  # which take half the time of enumerations


class ProcessState:
    """The state of this process as it is now.

    It covers the working directory, environment variables, locale, the default timeout of sockets,
    filters of warnings, `sys.path`, `sys.argv` and the recursion limit, and in a process that runs
    one task at a time the umask, signal handlers, the timer and decimal's context. Functions of
    modules are covered by `Patches`.

    Args:
        alone: Whether one task runs at a time, in the main thread: only that one may set signal
            handlers, reading the umask means changing it for a moment, and tasks of an event loop
            have a decimal context each.
    """

    def __init__(self, *, alone: bool) -> None:
        parts = _PARTS + _PARTS_ALONE if alone else _PARTS
        self._parts = [(part, part.read()) for part in parts]

    def changes(self) -> list[str]:
        """Return what has changed since, in words for a log."""
        return [part.name for part, value in self._parts if part.read() != value]

    def restore(self) -> list[str]:
        """Restore what has changed since, and return what that is, in words for a log."""
        restored = []
        for part, value in self._parts:
            if part.read() != value:
                restored.append(part.name)
                with contextlib.suppress(OSError, ValueError):  # such as a folder that is gone
                    part.write(value)
        return restored


class Patches:
    """The functions of modules that are often patched, as they are now.

    A patch cannot be taken back safely, as other modules may hold what it put there: a process in
    which one is left runs no further task.
    """

    def __init__(self) -> None:
        found = ((name, sys.modules.get(name)) for name in _PATCHED)
        self._modules = [
            (name, vars(each), dict(vars(each)), [*vars(each).values()])
            for name, each in found
            if each
        ]

    def changes(self) -> list[str]:
        """Return what has been replaced since, such as `time.sleep`."""
        return [
            f"{name}.{key}"
            for name, now, then, values in self._modules
            # Finds nothing nearly always, and takes a third of what comparing both by key takes.
            if [*now.values()] != values
            for key, value in then.items()
            if now.get(key, value) is not value and callable(value)
        ]


def reseed() -> None:
    """Seed `random` anew: what follows must not depend on a seed that a task has set."""
    # Half the work of `random.seed()`.
    random.seed(int.from_bytes(os.urandom(_SEED_BYTES), sys.byteorder))


class _Part(NamedTuple):
    name: str
    read: Callable[[], Any]
    write: Callable[[Any], Any]


def _directory() -> bytes | None:
    try:
        return os.getcwdb()  # noqa: PTH109 - bytes to compare, which are not decoded
    except FileNotFoundError:
        return None


def _set_directory(directory: bytes | None) -> None:
    if directory is not None:
        os.chdir(directory)


def _environment() -> dict[Any, Any]:
    """Return the variables as the interpreter keeps them, a tenth of the work of decoding them."""
    return dict(vars(os.environ)["_data"])


def _set_environment(variables: dict[Any, Any]) -> None:
    decode: Any = vars(os.environ)["decodevalue"]
    os.environ.clear()
    os.environ.update({decode(name): decode(value) for name, value in variables.items()})


def _umask() -> int:
    # A file that another thread makes in this moment is more private, not less.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _handlers() -> list[Any]:
    # The function below `signal.getsignal`, which makes enumerations of 60 answers.
    return [*map(_signal.getsignal, _NUMBERS)]


def _set_handlers(handlers: list[Any]) -> None:
    for number, handler in zip(_SIGNALS, handlers, strict=True):
        # None stands for a handler that Python did not set, and cannot set again.
        if handler is not None and _signal.getsignal(number) is not handler:
            signal.signal(number, handler)


def _set_filters(filters: Sequence[Any]) -> None:
    warnings.resetwarnings()  # tells the interpreter's cache, too
    warnings.filters[:] = filters  # type: ignore[index]


def _decimal_context() -> tuple[Any, ...]:
    """Return all of the context but the flags, which say what has happened."""
    *settings, _, traps = decimal.getcontext().__reduce__()[1]
    return *settings, traps


def _set_decimal_context(_: tuple[Any, ...]) -> None:
    decimal.setcontext(decimal.Context())  # as `decimal.DefaultContext` has it


_PATCHED = ("builtins", "os", "time", "socket", "subprocess", "json", "random", "threading")
_PARTS = (
    _Part("working directory", _directory, _set_directory),
    _Part("environment", _environment, _set_environment),
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
    _Part("filters of warnings", lambda: list(warnings.filters), _set_filters),
)
_PARTS_ALONE = (
    _Part("umask", _umask, os.umask),
    _Part("decimal context", _decimal_context, _set_decimal_context),
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


def kill_trees(roots: Iterable[int]) -> int:
    """Kill processes and all that descends from them; return how many were running.

    Their parents reap them. Only on Linux; elsewhere the roots alone.
    """
    found = dict.fromkeys(roots)
    for pid in found:
        # None may begin another one meanwhile.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGSTOP)
    below = list(found)
    while below:
        below = [each for pid in below for each in _children(pid) if each not in found]
        found |= dict.fromkeys(below)
    for pid in found:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    return len(found)


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


def _children(pid: int | str = "self") -> list[int]:
    """Return the child processes of all threads of a process."""
    found: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, file.read_text().split())
    return found
