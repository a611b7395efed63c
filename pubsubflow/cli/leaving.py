"""The end of a command's process: what is written is written, and nothing is cleared away."""

import atexit
import os
import sys
import threading
from contextlib import suppress
from typing import NoReturn

# The module that executes DAG files: user code may leave files open and objects with finalisers.
_USER_CODE = "pubsubflow.authoring.dag_files"


def leave(code: int) -> NoReturn:
    """End this process with an exit code.

    Clearing away the modules and objects of an interpreter takes longer than most commands run, and
    the operating system does it at once. So functions that were registered for the exit are called,
    streams are flushed, and the process ends. Where user code ran here, or threads go on, the
    interpreter ends in the usual way.
    """
    if _USER_CODE in sys.modules or _has_threads():
        sys.exit(code)
    # As processes of the standard library's multiprocessing end.
    atexit._run_exitfuncs()  # noqa: SLF001 - there is no public name
    for stream in (sys.stdout, sys.stderr):
        # None, or closed by the reader of a pipe: its text is lost either way.
        with suppress(AttributeError, OSError, ValueError):
            stream.flush()
    os._exit(code)


def _has_threads() -> bool:
    """Whether a thread runs that the interpreter would wait for."""
    main = threading.main_thread()
    return any(each is not main and not each.daemon for each in threading.enumerate())
