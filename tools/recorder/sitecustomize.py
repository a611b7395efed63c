"""The recorder of `tools/main_path.py`: writes each function and line that a process enters.

Python imports a module of this name at its start, so a folder on PYTHONPATH is enough to record the
daemon, the zygote and every process that the zygote forks: a fork keeps the trace function.
All processes append to one file, whose order is therefore the order of what happened:

    C pid function caller line   a function of pubsubflow is entered or resumed
    L pid function line          one of its lines runs
    R pid function empty|value   it returns, or is suspended with a value
    S pid                        a statement is sent to Postgres
    U pid                        the first line of user code

A function is written as `path:line`, the path below the project.
"""

import os
import sys
import threading
from types import CodeType, FrameType
from typing import Any

_OPTIMIZED = 1  # set in the flags of a function's code, not of a module's or a class's
_FIRST_RESUME = 0  # the argument of RESUME where a coroutine begins, not where it goes on
_STATEMENTS = ("Connection.execute", "Connection._do_execute")


class Recorder:
    """Traces the functions of one folder.

    Args:
        path: The file that all processes append to.
        root: The project's folder; functions below `root/pubsubflow` are recorded.
        user: The file of user code.
    """

    def __init__(self, path: str, root: str, user: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._cut = len(root) + 1
        self._package = os.path.join(root, "pubsubflow") + os.sep  # noqa: PTH118 - before any import
        self._user = user

    def trace(self, frame: FrameType, _event: str, _argument: Any) -> Any:
        """Trace a function; called by the interpreter when a frame is entered."""
        code = frame.f_code
        name = code.co_filename
        if name.startswith(self._package) and code.co_flags & _OPTIMIZED:
            caller = frame.f_back
            origin = "-\t0"
            if caller is not None and caller.f_code.co_filename.startswith(self._package):
                origin = f"{self._function(caller.f_code)}\t{caller.f_lineno}"
            self._write(f"C\t{os.getpid()}\t{self._function(code)}\t{origin}\n")
            return self._trace_lines
        if name == self._user and code.co_name == "first":
            self._write(f"U\t{os.getpid()}\n")
        elif (
            name.endswith("asyncpg/connection.py")
            and code.co_qualname in _STATEMENTS
            and code.co_code[frame.f_lasti + 1] & 3 == _FIRST_RESUME
        ):
            self._write(f"S\t{os.getpid()}\n")
        return None

    def _trace_lines(self, frame: FrameType, event: str, argument: Any) -> Any:
        function = self._function(frame.f_code)
        if event == "line":
            self._write(f"L\t{os.getpid()}\t{function}\t{frame.f_lineno}\n")
        elif event == "return":
            empty = argument is None or argument is False or argument in ((), [], {}, b"", "")
            self._write(f"R\t{os.getpid()}\t{function}\t{'empty' if empty else 'value'}\n")
        return self._trace_lines

    def _function(self, code: CodeType) -> str:
        return f"{code.co_filename[self._cut :]}:{code.co_firstlineno}"

    def _write(self, line: str) -> None:
        os.write(self._file, line.encode())


if "MAIN_PATH_RECORD" in os.environ:
    _recorder = Recorder(*os.environ["MAIN_PATH_RECORD"].split(os.pathsep))
    threading.settrace(_recorder.trace)
    sys.settrace(_recorder.trace)
