"""The host of a bundle: a warm process with Airflow that forks all others for the bundle.

It is started by `start.py`, listens on a socket, and hands each client to a process forked for its
file; imports get a process of their own that ends with them.
"""

import base64
import gc
import os
import select
import signal
import socket
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import msgspec
from airflow.sdk.execution_time import supervisor, task_runner

from pubsubflow.airflow.inside.channel import Channel
from pubsubflow.airflow.inside.comms import ClientQuestions
from pubsubflow.airflow.inside.load import Loaded, load
from pubsubflow.airflow.inside.passing import Handed, receive_client
from pubsubflow.airflow.inside.processes.children import ALL_SIGNALS
from pubsubflow.airflow.inside.processes.files_process import FileProcess, file_key, share_memory
from pubsubflow.airflow.inside.processes.output import Output
from pubsubflow.airflow.inside.processes.preparing import prepare_attempts, prepare_host
from pubsubflow.airflow.inside.processes.rehearsal import rehearse
from pubsubflow.airflow.inside.structures import structure_of
from pubsubflow.airflow.inside.triggers import serve_triggers
from pubsubflow.airflow.inside.variables import GivenVariables
from pubsubflow.airflow.protocol import BridgeSettings, ClientRequest, decode_settings
from pubsubflow.runner.parent_death import end_with_parent

_TRIGGERS = "triggers"


class _Process:
    """A process of a file, or of triggers: its control stream, and its pid."""

    def __init__(self, pid: int, control: socket.socket) -> None:
        self.pid = pid
        self.control = control


class Host:
    """Accepts clients and hands them to processes.

    Args:
        settings: Where it listens.
    """

    def __init__(self, settings: BridgeSettings) -> None:
        self._settings = settings
        self._listener = socket.socket(socket.AF_UNIX)
        self._processes: dict[Any, _Process] = {}
        self._wake, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_writer, False)
        self._pid = os.getpid()
        self._retired = False

    def serve(self) -> None:
        """Accept clients until SIGTERM says that another host does, or the parent is gone."""
        path = Path(self._settings.socket)
        path.unlink(missing_ok=True)
        self._listener.bind(str(path))
        self._listener.listen(256)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self._retire())
        signal.set_wakeup_fd(self._wake_writer, warn_on_full_buffer=False)
        poller = select.poll()
        poller.register(self._listener, select.POLLIN)
        poller.register(self._wake, select.POLLIN)
        while not self._retired:
            ready = {fd for fd, _ in poller.poll()}
            if self._wake in ready:
                os.read(self._wake, 4096)
                self._reap()
            if self._listener.fileno() in ready:
                self._accept()
        # Those that connected here before the other host listened.
        poller = select.poll()
        poller.register(self._listener, select.POLLIN)
        while poller.poll(0):
            self._accept()
        self._listener.close()
        for key, process in self._processes.items():
            process.control.close()
            if key[0] == _TRIGGERS:  # they may wait for days: their clients begin anew
                os.kill(process.pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            while True:
                os.wait()

    def _accept(self) -> None:
        sock, _ = self._listener.accept()
        client = receive_client(sock)
        if client is not None:
            self._serve_client(client)

    def _retire(self) -> None:
        self._retired = True

    def _serve_client(self, client: Handed) -> None:
        request = client.request
        if request.operation == "load":
            if self._fork() == 0:
                _run_to_end(lambda: _load(client))
            client.close()
            return
        triggers = request.operation == "trigger"
        key = (_TRIGGERS, request.folder) if triggers else file_key(request)
        for _ in range(2):
            process = self._processes.pop(key, None) or self._start(client)
            # Put last: those used longest ago are first.
            self._processes[key] = process
            try:
                client.pass_on(process.control)
                break
            except OSError:  # it has ended since
                self._processes.pop(key).control.close()
        client.close()
        self._end_idle()

    def _start(self, client: Handed) -> _Process:
        request = client.request
        ours, theirs = socket.socketpair()
        pid = self._fork()
        if pid == 0:
            ours.close()
            client.close()  # it is handed over in a moment
            for other in self._processes.values():
                other.control.close()
            serve = serve_triggers if request.operation == "trigger" else self._serve_file
            _run_to_end(lambda: serve(theirs, request))
        theirs.close()
        return _Process(pid, ours)

    def _serve_file(self, control: socket.socket, request: ClientRequest) -> None:
        task_runner.SUPERVISOR_COMMS = GivenVariables(request.variables)
        output = Output()
        found = _loaded(request)
        prepare_attempts(found.dags.values())
        share_memory()
        FileProcess(control, found, output, self._settings).serve()

    def _end_idle(self) -> None:
        """Close the streams to the processes used longest ago; each ends with its last attempt."""
        for key in list(self._processes)[: -self._settings.files]:
            self._processes.pop(key).control.close()

    def _fork(self) -> int:
        signals = signal.pthread_sigmask(signal.SIG_BLOCK, ALL_SIGNALS)
        pid = os.fork()
        if pid == 0:
            os.setsid()
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, signals)
            end_with_parent(self._pid, None)
            self._listener.close()
            gc.enable()
            return 0
        signal.pthread_sigmask(signal.SIG_SETMASK, signals)
        return pid

    def _reap(self) -> None:
        try:
            while (gone := os.waitpid(-1, os.WNOHANG)[0]) != 0:
                for key, process in list(self._processes.items()):
                    if process.pid == gone:
                        self._processes.pop(key).control.close()
        except ChildProcessError:
            pass


def _run_to_end(function: Any) -> NoReturn:
    code = 1
    try:
        function()
        code = 0
    except SystemExit as stop:
        sys.stderr.write(f"{stop}\n")
    except BaseException:  # noqa: BLE001 - the process ends here, and says why
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _load(client: Handed) -> None:
    """Import a file for a client, and send what it makes."""
    Output().use(client.take_output())
    channel = Channel(client.sock, ends_process=True)
    task_runner.SUPERVISOR_COMMS = ClientQuestions(channel)
    found = structure_of(_loaded(client.request))
    channel.end(msgspec.structs.replace(found, reads=_reads(client.request.folder)))


def _reads(folder: str) -> tuple[str, ...]:
    """Return the modules of a folder that this process has imported, relative to it."""
    files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    start = f"{folder}/"
    return tuple(sorted(file[len(start) :] for file in files if file and file.startswith(start)))


def _loaded(request: ClientRequest) -> Loaded:
    path = str(Path(request.folder, request.file))
    found = load(path, root=request.folder, legacy=request.legacy)
    if request.folder != request.root:
        found.traceback = found.traceback.replace(request.folder, request.root)
    return found


def main(encoded: str) -> None:
    """Serve clients; the argument is an encoded BridgeSettings in base 64."""
    settings = decode_settings(base64.b64decode(encoded))
    end_with_parent(settings.parent, None)
    # The metadata database is out of reach of files, tasks and triggers, as in Airflow itself.
    supervisor.block_orm_access()
    prepare_host()
    rehearse()
    gc.disable()
    share_memory()
    Host(settings).serve()
