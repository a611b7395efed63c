"""Recorded coroutines: while code of a task runs, shared memory holds the task's number."""

import os
from collections.abc import Coroutine, Generator
from typing import Any, ClassVar

from pubsubflow.runner.failures import TaskExited
from pubsubflow.runner.flight_recorder import RUNNING

_FORKED_TEXT = b"a child that a task forked came back to the event loop: it ends here\n"


class TaskCoroutine(Coroutine[Any, Any, Any]):
    """Runs a coroutine of a task and records, step by step, that the task runs.

    Args:
        work: The coroutine.
        page: The page of the flight recorder.
        number: The task's assignment.

    Attributes:
        forked: Whether this process is a child that a task has forked.
    """

    __slots__ = ("_number", "_page", "_work")
    forked: ClassVar[bool] = False

    def __init__(self, work: Coroutine[Any, Any, Any], page: memoryview, number: int) -> None:
        self._work = work
        self._page = page
        self._number = number

    def send(self, value: Any) -> Any:
        """Run until the next await."""
        self._page[RUNNING] = self._number
        try:
            return self._work.send(value)
        except (SystemExit, KeyboardInterrupt) as error:
            # When one of these leaves an asyncio task, the loop ends and all tasks with it.
            raise TaskExited from error
        finally:
            self._page[RUNNING] = 0
            if self.forked:
                _end_child()

    def throw(self, error: Any, *more: Any) -> Any:
        """Raise an exception in it, and run until the next await."""
        self._page[RUNNING] = self._number
        try:
            return self._work.throw(error, *more)
        except (SystemExit, KeyboardInterrupt) as left:
            raise TaskExited from left
        finally:
            self._page[RUNNING] = 0
            if self.forked:
                _end_child()

    def close(self) -> None:
        """Close the coroutine."""
        self._work.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._work.__await__()

    @classmethod
    def mark_fork(cls) -> None:
        """Note that this process is a child that a task has forked."""
        cls.forked = True

    def __getattr__(self, name: str) -> Any:
        # `cr_frame` and others, by which asyncio and debuggers find a task's stack.
        return getattr(self._work, name)


def _end_child() -> None:
    """End a forked child: the loop, its sockets and all other tasks are the parent's."""
    os.write(2, _FORKED_TEXT)
    os._exit(1)
