"""The process of one file: it has imported the file, and forks a child for each attempt."""

import os
import select
import signal
import socket
import sys
import traceback
from typing import Any, NoReturn

from pubsubflow.airflow.inside.attempt import call_callbacks, run_attempt
from pubsubflow.airflow.inside.channel import Channel
from pubsubflow.airflow.inside.comms import AttemptQuestions
from pubsubflow.airflow.inside.learning import Learning
from pubsubflow.airflow.inside.load import Loaded
from pubsubflow.airflow.inside.output import use_output
from pubsubflow.airflow.inside.passing import Handed, receive_handed
from pubsubflow.airflow.inside.wire import serve_wire
from pubsubflow.airflow.protocol import AttemptReport, ClientRequest, decode_order, encode
from pubsubflow.runner.frames import send_frame
from pubsubflow.runner.parent_death import end_with_parent


class FileProcess:
    """Forks children for the attempts of one file until the host closes the stream.

    Args:
        control: The stream from the host, by which clients are handed over.
        found: What the file has made.
        attempts: How many run at once.
    """

    def __init__(self, control: socket.socket, found: Loaded, attempts: int) -> None:
        self._control = control
        self._found = found
        self._attempts = attempts
        self._waiting: list[Handed] = []
        self._children: dict[int, Handed] = {}
        self._learning = Learning()
        self._wake, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_writer, False)
        os.set_blocking(self._wake, False)

    def serve(self) -> None:
        """Fork and reap; return when the host is gone and all attempts have ended."""
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake_writer, warn_on_full_buffer=False)
        poller = select.poll()
        poller.register(self._control, select.POLLIN)
        poller.register(self._wake, select.POLLIN)
        listening = True
        while listening or self._children or self._waiting:
            ready = {fd for fd, _ in poller.poll()}
            if self._wake in ready:
                os.read(self._wake, 4096)
                self._reap()
            if listening and self._control.fileno() in ready:
                handed = receive_handed(self._control)
                if handed is not None:
                    self._waiting.append(handed)
                listening = handed is not None
            while self._waiting and len(self._children) < self._attempts:
                self._fork(self._waiting.pop(0))
            # The host starts another process for those that come later.
            listening = listening and not self._learning.spoilt
            if not listening and self._control.fileno() >= 0:
                poller.unregister(self._control)
                self._control.close()

    def _fork(self, handed: Handed) -> None:
        self._learning.learn()
        signals = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        pid = os.fork()
        if pid == 0:
            self._be_child(handed, signals)
        signal.pthread_sigmask(signal.SIG_SETMASK, signals)
        # The client's end stays open here until the child is gone: it learns of a crash by that.
        self._children[pid] = handed

    def _be_child(self, handed: Handed, signals: Any) -> NoReturn:
        parent = os.getppid()
        code = 1
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, signals)
            end_with_parent(parent, None)
            self._control.close()
            for other in (*self._children.values(), *self._waiting):
                other.close()
            use_output(handed.take_output())
            self._learning.begin()
            _attempt(handed, self._found)
            self._learning.end()
            code = 0
        except BaseException:  # noqa: BLE001 - the process ends here, and says why
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _reap(self) -> None:
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            handed = self._children.pop(pid, None)
            if handed is None:
                continue
            code = os.waitstatus_to_exitcode(status)
            if code:
                handed.send(_died(code))
            handed.close()


def _attempt(handed: Handed, found: Loaded) -> None:
    """Run the attempt of a client in this process, and send its end."""
    order, legacy = decode_order(handed.request.payload), handed.request.legacy
    channel = Channel(handed.sock, ends_process=True)
    if found.error is not None:
        channel.end(
            AttemptReport(
                "failed",
                error_type=type(found.error).__name__,
                error_message=f"the file cannot be imported where the task runs: {found.error}",
                error_traceback=found.traceback,
            )
        )
        return
    questions = AttemptQuestions(channel, order.pushed)
    try:
        with serve_wire(questions):
            run = call_callbacks if order.callback else run_attempt
            end = run(found.dags[order.dag_id], order, questions, legacy=legacy)
    except Exception as error:  # noqa: BLE001 - the SDK refuses what it was given
        text = f"the attempt could not be started or ended: {error}"
        name = type(error).__name__
        end = AttemptReport("failed", None, {}, None, {}, "", (), None, None, name, text)
        traceback.print_exc()
    channel.end(end)


def _died(code: int) -> AttemptReport:
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return AttemptReport(
        "crashed", error_type="ProcessDied", error_message=f"the attempt's process ended with {how}"
    )


def send_end(sock: socket.socket, message: Any) -> None:
    """Send the last message to a client that has no channel."""
    send_frame(sock, encode(message))


def file_key(request: ClientRequest) -> tuple[Any, ...]:
    """Return what requests for one file process have in common."""
    return request.folder, request.file, request.legacy, repr(sorted(request.variables.items()))
