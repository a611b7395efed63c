"""The child of a child call: `python -m pubsubflow.child_calls.main TARGET SECONDS [ACCOUNT]`."""

import os
import signal
import sys
from importlib import import_module

import msgspec

from pubsubflow.runner.task_account import TaskAccount

_GRACE_SECONDS = 1.0


def main() -> None:
    """Call the target with the first line of stdin, and write each value that it yields."""
    target, seconds, *account = sys.argv[1:]
    if account:
        msgspec.json.decode(account[0], type=TaskAccount).enter()
    # User code prints what it likes: our lines go where its output does not.
    lines = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    # The parent ends this process in time; the alarm does where the parent has died.
    signal.setitimer(signal.ITIMER_REAL, float(seconds) + _GRACE_SECONDS)
    module, _, function = target.partition(":")
    argument = sys.stdin.buffer.readline()
    for value in getattr(import_module(module), function)(argument):
        lines.write(msgspec.json.encode(value) + b"\n")


if __name__ == "__main__":
    main()
