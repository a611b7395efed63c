"""The process of attempts: a child of the process of a file, for one attempt or one at a time."""

import os
import socket
import sys
import threading
import traceback

from pubsubflow.airflow.inside.attempt import call_callbacks, run_attempt
from pubsubflow.airflow.inside.channel import Channel
from pubsubflow.airflow.inside.comms import AttemptQuestions
from pubsubflow.airflow.inside.load import Loaded
from pubsubflow.airflow.inside.passing import Handed, receive_handed
from pubsubflow.airflow.inside.processes.children import ENDED, IDLE
from pubsubflow.airflow.inside.processes.learning import Learning
from pubsubflow.airflow.inside.processes.output import Output
from pubsubflow.airflow.inside.processes.written_pages import WrittenPages
from pubsubflow.airflow.inside.wire import serve_wire
from pubsubflow.airflow.protocol import AttemptReport, decode_order
from pubsubflow.runner.process_state import (
    Patches,
    ProcessState,
    adopt_orphans,
    kill_descendants,
    reseed,
)

# What a process holds grows with its attempts, whoever wrote them.
_MOST_ATTEMPTS = 500
_TIMEOUT = "AirflowTaskTimeout"


class AttemptsProcess:
    """Runs attempts of one file, one at a time.

    Args:
        found: What the file has made.
        output: The streams of this process.
        learning: Gets what the attempts have imported.
        pages: The memory that attempts write to.
        reused: Whether it runs more than one.
    """

    def __init__(
        self,
        found: Loaded,
        output: Output,
        learning: Learning,
        pages: WrittenPages,
        *,
        reused: bool,
    ) -> None:
        self._found = found
        self._output = output
        self._learning = learning
        self._pages = pages
        self._reused = reused

    def serve(self, control: socket.socket, *, ahead: bool) -> None:
        """Run attempts until the parent closes the stream, or this process is not to run more.

        Args:
            control: The stream from the parent.
            ahead: Whether no attempt waits for this process yet.
        """
        state, patches = None, None
        known = self._pages.known
        if known and ahead:
            self._pages.copy()
        if self._reused:
            adopt_orphans()
            state, patches = ProcessState(alone=True), Patches()
        for number in range(_MOST_ATTEMPTS if self._reused else 1):
            handed = receive_handed(control)
            if handed is None:
                return
            self._output.use(handed.take_output())
            self._learning.begin()
            report, channel = self._attempt(handed)
            stays = (
                state is not None
                and patches is not None
                and number + 1 < _MOST_ATTEMPTS
                and self._tidy(report, patches)
            )
            self._output.leave()
            # Before the end: the parent knows by it that a client which closes has all it wants.
            control.sendall(ENDED)
            channel.end(report)
            channel.close()
            self._learning.end()
            if not number and not known:
                self._pages.note()
            if not stays or state is None:
                return
            state.restore()
            reseed()
            control.sendall(IDLE)

    def _attempt(self, handed: Handed) -> tuple[AttemptReport, Channel]:
        """Run the attempt of a client, and return its end."""
        order, legacy = decode_order(handed.request.payload), handed.request.legacy
        channel, found = Channel(handed.sock, lazily=True), self._found
        if found.error is not None:
            return AttemptReport(
                "failed",
                error_type=type(found.error).__name__,
                error_message=f"the file cannot be imported where the task runs: {found.error}",
                error_traceback=found.traceback,
            ), channel
        questions = AttemptQuestions(channel, order.pushed)
        try:
            with serve_wire(questions):
                run = call_callbacks if order.callback else run_attempt
                return run(found.dags[order.dag_id], order, questions, legacy=legacy), channel
        except Exception as error:  # noqa: BLE001 - the SDK refuses what it was given
            text = f"the attempt could not be started or ended: {error}"
            traceback.print_exc()
            name = type(error).__name__
            return AttemptReport("failed", error_type=name, error_message=text), channel

    def _tidy(self, report: AttemptReport, patches: Patches) -> bool:
        """Undo what can be undone; return whether the process is fit for a further attempt."""
        killed = kill_descendants()
        if killed:
            _say(f"processes that the task left running were killed: {killed}")
        reason = _unfit(report, patches)
        if reason:
            _say(f"{reason}; the next attempt has another process")
        return not reason


def _unfit(report: AttemptReport, patches: Patches) -> str:
    if report.error_type == _TIMEOUT:
        return "the task was stopped by its timeout"
    patched = patches.changes()
    if patched:
        return f"the task has replaced for the whole process: {', '.join(patched)}"
    own = (threading.main_thread(),)
    left = [each.name for each in threading.enumerate() if each not in own]
    return f"the task has left threads running: {', '.join(left)}" if left else ""


def _say(text: str) -> None:
    sys.stderr.write(f"{text} (process {os.getpid()})\n")
