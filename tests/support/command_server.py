"""Runs commands as a shell does, in processes of their own that need not start an interpreter.

A server process has imported what commands import; for each command it forks a process with the
environment, the folder and the files of the caller. Like this a test of ten commands takes half a
second where ten interpreters took ten on a busy machine. What is imported is not what these tests
are about: those that are start an interpreter.
"""

import gc
import json
import os
import pkgutil
import signal
import socket
import struct
import subprocess
import sys
import traceback
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryFile

from msgspec import Struct

_SIZE = struct.Struct("!I")
_CODE = struct.Struct("!i")
_SECONDS = 120


class Answer(Struct):
    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


class CommandServer:
    """The server, and the way to it; a context manager."""

    def __enter__(self):
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "support.command_server", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                cwd=Path(__file__).parents[1],
            )
        self._socket = ours
        ours.settimeout(_SECONDS)
        return self

    def __exit__(self, *_):
        self._socket.close()
        self._process.wait(30)

    def call(self, *arguments, cwd=None, typed=None, **environ):
        """Run a command; `typed` is its stdin. Returns its exit code and what it wrote."""
        kept = {name: text for name, text in os.environ.items() if name[:10] != "PUBSUBFLOW"}
        # As in tests/conftest.py.
        kept["PUBSUBFLOW__WORKER__RUN_AS"] = ""
        kept["PUBSUBFLOW__LOADER__SLOW_SECONDS"] = "30"
        request = {
            "arguments": [str(argument) for argument in arguments],
            "cwd": str(cwd or Path.cwd()),
            "environ": {**kept, **environ},
        }
        body = json.dumps(request).encode()
        with TemporaryFile() as stdin, TemporaryFile() as out, TemporaryFile() as err:
            stdin.write((typed or "").encode())
            stdin.seek(0)
            files = [stdin.fileno(), out.fileno(), err.fileno()]
            socket.send_fds(self._socket, [_SIZE.pack(len(body))], files)
            self._socket.sendall(body)
            code = _CODE.unpack(_received(self._socket, _CODE.size))[0]
            return Answer(code, _text(out), _text(err))


def _text(file):
    file.seek(0)
    return file.read().decode()


def _received(connection, count):
    received = b""
    while len(received) < count:
        part = connection.recv(count - len(received))
        if not part:
            raise ConnectionError("the other side has left")
        received += part
    return received


def serve(connection):
    """Fork for each request; returns when the caller has left."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    commands = import_module("pubsubflow.cli.commands")
    for module in pkgutil.walk_packages(commands.__path__, f"{commands.__name__}."):
        import_module(module.name)
    main = import_module("pubsubflow.cli.main").main
    gc.freeze()
    while True:
        head, files, _, _ = socket.recv_fds(connection, _SIZE.size, 3)
        if not head:
            return
        request = json.loads(_received(connection, _SIZE.unpack(head)[0]))
        child = os.fork()
        if not child:
            connection.close()
            _run(request, files, main)
        for file in files:
            os.close(file)
        _, status = os.waitpid(child, 0)
        connection.sendall(_CODE.pack(os.waitstatus_to_exitcode(status)))


def _run(request, files, main):
    """Become the process of the command, and end."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environ"])
    sys.argv = ["pubsubflow", *request["arguments"]]
    code = 1
    try:
        main()
    except SystemExit as left:
        code = left.code or 0
    finally:
        if sys.exception():
            traceback.print_exc()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        # What an interpreter clears away at its end takes longer than the command.
        os._exit(code)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
