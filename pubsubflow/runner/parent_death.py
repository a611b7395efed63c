"""Parent death: ends a child process with its parent, however the parent ends."""

import ctypes
import os
import select
import signal
import sys
import threading

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


def end_with_parent(parent: int, lifeline: int | None, number: int = signal.SIGKILL) -> None:
    """End this process with its parent; call it in the child.

    On Linux the kernel sends a signal (PR_SET_PDEATHSIG), even while the process is busy in C
    code. Elsewhere a thread waits for the end of the lifeline and kills the process group.

    Args:
        parent: The parent's pid as the parent knows it: if it is gone already, the process ends.
        lifeline: The reading end of a pipe whose only writing end the parent holds; None when
            the process notices the parent's end in another way on systems without that signal.
        number: The signal.
    """
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    elif lifeline is not None:
        threading.Thread(
            target=_wait_end, args=(lifeline, number), name="lifeline", daemon=True
        ).start()
    # After the call, not before: a parent that died in between would not be noticed.
    if os.getppid() != parent:
        os._exit(1)


def _wait_end(lifeline: int, number: int) -> None:
    watch = select.poll()
    watch.register(lifeline, select.POLLIN | select.POLLHUP)
    watch.poll()
    os.killpg(0, number)
