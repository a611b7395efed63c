"""The child of a child call: `python -m pubsubflow.child_calls.main TARGET SECONDS [ACCOUNT]`.

It forks the process in which user code runs, and ends with it, with SIGTERM or at the time limit;
whatever user code has started ends then, also in a session of its own.
"""

import contextlib
import os
import signal
import sys
from importlib import import_module
from typing import Any, NoReturn

import msgspec

from pubsubflow.runner.parent_death import end_with_parent
from pubsubflow.runner.process_state import adopt_orphans, kill_orphans
from pubsubflow.runner.task_account import TaskAccount

_GRACE_SECONDS = 1.0
_ENDING = (signal.SIGTERM, signal.SIGALRM)


def main() -> None:
    """Call the target with the first line of stdin, and write each value that it yields."""
    target, seconds, *account = sys.argv[1:]
    adopt_orphans()
    for number in _ENDING:
        signal.signal(number, _end)
    # The parent ends this process in time; the alarm does where the parent has died.
    signal.setitimer(signal.ITIMER_REAL, float(seconds) + _GRACE_SECONDS)
    parent = os.getpid()
    child = os.fork()
    if not child:
        _call(target, account, parent)
    try:
        try:
            _, status = os.waitpid(child, 0)
        finally:
            # A signal that comes now must not end the clearing up.
            _ignore_signals()
    finally:
        kill_orphans(())
    code = os.waitstatus_to_exitcode(status)
    if code < 0:  # by what ended user code
        with contextlib.suppress(OSError):  # such as SIGKILL, which has no handler
            signal.signal(-code, signal.SIG_DFL)
        os.kill(parent, -code)
    sys.exit(code)


def _end(*_: Any) -> NoReturn:
    _ignore_signals()
    sys.exit(1)


def _ignore_signals() -> None:
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)


def _call(target: str, account: list[str], parent: int) -> NoReturn:
    """Call the target in this process, and end it."""
    for number in _ENDING:
        signal.signal(number, signal.SIG_DFL)
    if account:
        msgspec.json.decode(account[0], type=TaskAccount).enter()
    end_with_parent(parent, None)
    # User code prints what it likes: our lines go where its output does not.
    lines = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    code = 1
    try:
        module, _, function = target.partition(":")
        argument = sys.stdin.buffer.readline()
        for value in getattr(import_module(module), function)(argument):
            lines.write(msgspec.json.encode(value) + b"\n")
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
