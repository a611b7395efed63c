"""The children in which attempts run: forked ahead, or kept for further attempts."""

import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NoReturn, Protocol

from pubsubflow.airflow.inside.channel import GRACE_SECONDS
from pubsubflow.airflow.inside.passing import Handed
from pubsubflow.airflow.protocol import AttemptReport
from pubsubflow.runner.parent_death import end_with_parent

ENDED, IDLE = b"e", b"i"
ALL_SIGNALS = signal.valid_signals()


class Run(Protocol):
    """What a child does with its end of the stream; `ahead` if no attempt waits for it yet."""

    def __call__(self, control: socket.socket, /, *, ahead: bool) -> None:
        """Run attempts until the parent closes the stream."""


class AttemptChild:
    """A child: waits for an attempt, or runs one.

    Args:
        pid: Its process, which leads a process group.
        control: The stream by which it gets attempts, and says that one has ended.

    Attributes:
        used: How many attempts it was given.
        since: When it was last given one or came back, monotonic seconds.
        handed: The client of the attempt that it runs.
        dies_at: When it is killed for good, as its client is gone; None as long as that is there.
    """

    def __init__(self, pid: int, control: socket.socket) -> None:
        self.pid = pid
        self.control = control
        self.used = 0
        self.since = time.monotonic()
        self.handed: Handed | None = None
        self.dies_at: float | None = None

    def take(self, handed: Handed) -> bool:
        """Give it an attempt; False when it has ended since."""
        try:
            handed.pass_on(self.control)
        except OSError:
            return False
        handed.drop_output()
        self.handed = handed
        self.used += 1
        self.since = time.monotonic()
        return True

    def read(self) -> bytes:
        """Return what it has said since; `ENDED` closes the client."""
        try:
            said = self.control.recv(16, socket.MSG_DONTWAIT)
        except OSError:  # nothing, or the stream is closed on either side
            return b""
        if ENDED in said:
            self._let_go()
        if IDLE in said:
            self.since = time.monotonic()
        return said

    def interrupt(self) -> None:
        """Stop the attempt: Airflow turns the signal into `on_kill`."""
        self.dies_at = time.monotonic() + GRACE_SECONDS
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Stop it and all that it has started."""
        self.dies_at = None
        self._let_go()
        # It leads its group only from its first moment on.
        for end in (os.killpg, os.kill):
            with suppress(ProcessLookupError):
                end(self.pid, signal.SIGKILL)

    def gone(self, status: int) -> None:
        """Say to its client how its process has ended, if that was in an attempt."""
        self.read()
        code = os.waitstatus_to_exitcode(status)
        if self.handed is not None and code:
            self.handed.send(_died(code))
        self._let_go()
        self.control.close()

    def forget(self) -> None:
        """Close all that belongs to it, in another child."""
        self.control.close()
        self._let_go()

    def _let_go(self) -> None:
        if self.handed is not None:
            self.handed.close()
            self.handed = None


class AttemptChildren:
    """The children of one process, by pid.

    Args:
        run: What a child does with its end of the stream.
        begin: Called in a child first, to close what is not its own.
    """

    def __init__(self, run: Run, begin: Callable[[], None]) -> None:
        self._run = run
        self._begin = begin
        self._all: dict[int, AttemptChild] = {}
        self._idle: list[AttemptChild] = []

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[AttemptChild]:
        return iter(list(self._all.values()))

    @property
    def busy(self) -> int:
        """How many run an attempt, or end after one."""
        return len(self._all) - len(self._idle)

    @property
    def idle(self) -> list[AttemptChild]:
        """Those that wait for an attempt; the one used last is the last."""
        return self._idle

    def hand_out(self, handed: Handed) -> AttemptChild:
        """Give an attempt to a child that waits for one, or to a new one."""
        while True:
            if not self._idle:
                self.fork(ahead=False)
            child = self._idle.pop()
            if child.take(handed):
                return child

    def fork(self, *, ahead: bool) -> None:
        """Fork a child that waits for an attempt; `ahead` if there is none for it yet."""
        ours, theirs = socket.socketpair()
        sys.stdout.flush()
        sys.stderr.flush()
        signals = signal.pthread_sigmask(signal.SIG_BLOCK, ALL_SIGNALS)
        pid = os.fork()
        if pid == 0:
            parent = os.getppid()
            _become_child(parent, signals, lambda: self._be_child(ours, theirs, ahead=ahead))
        signal.pthread_sigmask(signal.SIG_SETMASK, signals)
        theirs.close()
        child = self._all[pid] = AttemptChild(pid, ours)
        self._idle.append(child)

    def _be_child(self, ours: socket.socket, theirs: socket.socket, *, ahead: bool) -> None:
        ours.close()
        self._begin()
        for child in self._all.values():
            child.forget()
        self._run(theirs, ahead=ahead)

    def came_back(self, child: AttemptChild) -> None:
        """Keep a child for a further attempt, unless its last one was stopped."""
        if child.dies_at is None:
            self._idle.append(child)
        else:
            child.control.close()

    def dismiss(self, child: AttemptChild) -> None:
        """End a child that waits for an attempt."""
        self._idle.remove(child)
        child.control.close()

    def reap(self) -> list[AttemptChild]:
        """Return those that have ended, with what they knew closed."""
        found = []
        while self._all:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            child = self._all.pop(pid, None)
            if child is not None:
                child.gone(status)
                found.append(child)
                if child in self._idle:
                    self._idle.remove(child)
        return found


def _become_child(parent: int, signals: set[int], run: Callable[[], None]) -> NoReturn:
    code = 1
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, signals)
        end_with_parent(parent, None)
        run()
        code = 0
    except BaseException:  # noqa: BLE001 - the process ends here, and says why
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _died(code: int) -> AttemptReport:
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return AttemptReport(
        "crashed", error_type="ProcessDied", error_message=f"the attempt's process ended with {how}"
    )
