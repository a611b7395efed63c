"""Calls of callbacks, in a child process that requests connections from its parent."""

import asyncio
import inspect
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from io import TextIOBase
from queue import SimpleQueue
from typing import Any

import msgspec

from pubsubflow.authoring.alerts.callbacks import Callback
from pubsubflow.authoring.dag_files import BundleFolder, users_text
from pubsubflow.authoring.datasets import freshness_callbacks
from pubsubflow.authoring.registry import LoadedDefinitions
from pubsubflow.authoring.runtime.callback_context import CallbackContext
from pubsubflow.child_calls.messages import CallbackLine, CallbackReply, CallbackRequest
from pubsubflow.errors import ConfigError, DefinitionError, NotFound
from pubsubflow.model.callbacks import CallbackKind
from pubsubflow.model.connections import Connection
from pubsubflow.model.values.variables import Variable

_LINE_CHARACTERS = 8000


_decode = msgspec.json.Decoder(CallbackRequest).decode
_decode_reply = msgspec.json.Decoder(CallbackReply).decode


def run_callback(argument: bytes) -> Iterator[CallbackLine]:
    """Import the DAG file and call the callback; yield its output, requests, and the end."""
    lines: SimpleQueue[CallbackLine] = SimpleQueue()
    thread = threading.Thread(target=_run, args=(_decode(argument), lines), daemon=True)
    thread.start()
    while True:
        line = lines.get()
        yield line
        if line.ended:
            return


def _run(request: CallbackRequest, lines: SimpleQueue[CallbackLine]) -> None:
    output = _Output(lines)
    channel = _Channel(lines)
    try:
        with redirect_stdout(output), redirect_stderr(output):
            callback = _find(request)
            context = CallbackContext(
                request.facts,
                read_connection=channel.connection,
                read_variable=channel.variable,
                write_log=output.log,
            )
            result = callback(context)
            if inspect.isawaitable(result):
                asyncio.run(_await(result))
    except BaseException as error:  # noqa: BLE001 - whatever user code raises is an outcome
        output.flush()
        text = users_text(" ".join(f"{type(error).__name__}: {error}".split()))
        lines.put(CallbackLine(ended=True, error=text[:_LINE_CHARACTERS]))
    else:
        output.flush()
        lines.put(CallbackLine(ended=True))


async def _await(result: Any) -> None:
    await result


def _find(request: CallbackRequest) -> Callback:
    """Return the function that the facts name.

    Raises:
        DefinitionError: The file does not make it any more.
    """
    facts = request.facts
    folder = BundleFolder.enter(request.folder, request.root, request.kind)
    made = folder.execute(request.file, LoadedDefinitions(request.file, request.variables))
    if facts.kind == CallbackKind.FRESH:
        listed = freshness_callbacks(made.datasets, facts.dataset or "")
    else:
        dag = made.dags.get(facts.dag_id or "")
        if dag is None:
            raise DefinitionError("the file does not make this DAG where it is imported now")
        if facts.kind == CallbackKind.DEADLINE:
            listed = dag.deadlines[facts.number].notify if facts.number < len(dag.deadlines) else ()
        elif facts.task_id is None:
            listed = getattr(dag, facts.kind)
        else:
            node = dag.nodes.get(facts.task_id)
            listed = getattr(node.options, facts.kind) if node is not None else ()
    if facts.position >= len(listed):
        raise DefinitionError(f"the file has no such {facts.kind}= where it is imported now")
    callback: Callback = listed[facts.position]
    return callback


class _Channel:
    """Sends requests to the parent, one after the other."""

    def __init__(self, lines: SimpleQueue[CallbackLine]) -> None:
        self._lines = lines
        self._lock = threading.Lock()

    def connection(self, name: str) -> Connection:
        found = self._ask(CallbackLine(connection=name)).connection
        if found is None:
            raise ConfigError(str(NotFound("connection", name)))
        return found

    def variable(self, name: str) -> Variable | None:
        return self._ask(CallbackLine(variable=name)).variable

    def _ask(self, line: CallbackLine) -> CallbackReply:
        with self._lock:
            self._lines.put(line)
            reply = _decode_reply(sys.stdin.buffer.readline())
        if reply.error is not None:
            raise ConfigError(reply.error)
        return reply


class _Output(TextIOBase):
    """Sends what is printed, line by line."""

    def __init__(self, lines: SimpleQueue[CallbackLine]) -> None:
        self._lines = lines
        self._rest = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        *whole, self._rest = (self._rest + text).split("\n")
        for line in whole:
            self._put(line)
        return len(text)

    def flush(self) -> None:
        if self._rest:
            self._put(self._rest)
            self._rest = ""

    def log(self, level: str, event: str, fields: Mapping[str, Any]) -> None:
        more = "".join(f" {name}={value}" for name, value in fields.items())
        self._put(f"{level} {event}{more}")

    def _put(self, line: str) -> None:
        self._lines.put(CallbackLine(output=line[:_LINE_CHARACTERS]))
