"""Process state that async tasks share: what one of them changes reaches no task that begins later.

Where a task was alone since the last look, a change is its own: it is named in its log and undone.
Beside others it can be said neither whose it is nor whether one of them needs it: the logs
of all say so, no further task begins in the process, and it ends when they have ended.

Processes that a task has started end with it. One that has detached itself from its parent may
belong to any task: it ends as soon as a task ends while no other runs.
"""

import asyncio
import subprocess
from collections.abc import Callable, Collection
from typing import Any

from pubsubflow.runner.output import TaskOutput
from pubsubflow.runner.process_state import (
    Patches,
    ProcessState,
    kill_orphans,
    kill_trees,
    reseed,
)

_MOST_NAMED = 8
_LEFT_TEXT = "no further task begins in this process"


class SharedState:
    """The state of a process that runs async tasks, from its start or its last import on.

    Args:
        leave: Called once when no further task may begin here, with the number of a task.

    Attributes:
        spoilt: No further task may begin here.
    """

    def __init__(self, leave: Callable[[int], None]) -> None:
        self._leave = leave
        self._mixed = False
        self.spoilt = False
        self.rebase()

    def rebase(self) -> None:
        """Take the state as it is now for the one to keep: a DAG file's import may change it."""
        if self.spoilt:
            return
        self._state = ProcessState(alone=False)
        self._whole = ProcessState(alone=True)
        self._patches = Patches()

    def begin(self, running: Collection[TaskOutput]) -> bool:
        """Return whether a task may begin here; to be called before its first step.

        Args:
            running: The output of each task that runs here already.
        """
        self._mixed = bool(running)
        return self.check(running) if running else not self.spoilt

    def check(self, running: Collection[TaskOutput]) -> bool:
        """Look for a change while tasks run, and return whether there was none so far."""
        if not self.spoilt and (changes := self._state.changes()):
            self._give_up(changes, running)
        return not self.spoilt

    def end(self, output: TaskOutput, running: Collection[TaskOutput]) -> None:
        """Undo what a task that has ended has changed, or give the process up.

        Args:
            output: Of the task.
            running: The output of each task that runs, with this one.
        """
        if self.spoilt:
            return
        if len(running) > 1:
            self.check(running)
            return
        by = "the task or one that ran beside it" if self._mixed else "the task"
        self._mixed = False
        restored = self._whole.restore()
        if restored:
            text = f"{by} changed for the whole process: {_list(restored)}; that is undone"
            output.record("warning", text, {})
        reseed()
        # Of what was restored some could not be, such as a folder that is gone.
        kept = self._patches.changes() or (restored and self._whole.changes())
        if kept:
            text = f"{by} has replaced for the whole process: {_list(kept)}; {_LEFT_TEXT}"
            output.record("warning", text, {})
            self._spoil(output)

    def _give_up(self, changes: list[str], running: Collection[TaskOutput]) -> None:
        text = (
            f"changed for the whole process, by this task or one of {len(running) - 1} beside it: "
            f"{_list(changes)}; {_LEFT_TEXT}"
        )
        if len(running) == 1:
            text = f"the task changed for the whole process: {_list(changes)}; {_LEFT_TEXT}"
        for output in running:
            output.record("warning", text, {})
        self._spoil(next(iter(running)))

    def _spoil(self, output: TaskOutput) -> None:
        self.spoilt = True
        self._leave(output.number)


def _list(changes: list[str]) -> str:
    return ", ".join(changes[:_MOST_NAMED])


def kill_children(output: TaskOutput, *, alone: bool) -> None:
    """Kill what a task that ends has started and left running, and say so in its log.

    Args:
        output: Of the task.
        alone: Whether no other task runs here: then also what has detached itself.
    """
    roots = [pid for each in output.children if (pid := _running(each)) is not None]
    killed = kill_trees(roots)
    if alone:
        killed += kill_orphans(roots)
    output.children.clear()
    if killed:
        text = f"processes that the task left running were killed: {killed}"
        output.record("warning", text, {})


def _running(child: "subprocess.Popen[Any] | asyncio.SubprocessTransport") -> int | None:
    """Return the process id of a child; None if it has ended."""
    if isinstance(child, subprocess.Popen):
        return child.pid if child.poll() is None else None
    # Not an instance either: uvloop's transports are classes of its own.
    return child.get_pid() if child.get_returncode() is None else None
