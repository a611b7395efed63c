"""The main function of a runner process, which workers fork."""

import faulthandler
import gc
import socket

import anyio
import msgspec

from pubsubflow.runner.async_runner import AsyncRunner
from pubsubflow.runner.limits import ProcessLimits, apply_limits
from pubsubflow.runner.protocol import RunnerSettings
from pubsubflow.runner.sync_runner import SyncRunner

_YOUNG_OBJECTS = 5_000
"""The collector looks for garbage among so many new objects, in place of 700: a few hundred async
tasks that run at once make more than that, and were looked through over and over."""


def main(sock: socket.socket, argument: bytes) -> None:
    """Run tasks for the worker at the other end of the socket until it closes.

    Args:
        sock: The stream of frames.
        argument: Encoded RunnerSettings.
    """
    faulthandler.enable()
    gc.set_threshold(_YOUNG_OBJECTS, *gc.get_threshold()[1:])
    settings = msgspec.msgpack.decode(argument, type=RunnerSettings)
    if settings.limits != ProcessLimits():
        apply_limits(settings.limits)
    if settings.kind == "sync":
        SyncRunner(sock, settings).run()
    else:
        runner = AsyncRunner(sock, settings)
        anyio.run(runner.run, backend_options={"use_uvloop": True})
