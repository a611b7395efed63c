"""The main function of a runner process, which workers fork."""

import faulthandler
import socket

import anyio
import msgspec

from pubsubflow.runner.async_runner import AsyncRunner
from pubsubflow.runner.limits import ProcessLimits, apply_limits
from pubsubflow.runner.protocol import RunnerSettings
from pubsubflow.runner.sync_runner import SyncRunner


def main(sock: socket.socket, argument: bytes) -> None:
    """Run tasks for the worker at the other end of the socket until it closes.

    Args:
        sock: The stream of frames.
        argument: Encoded RunnerSettings.
    """
    faulthandler.enable()
    settings = msgspec.msgpack.decode(argument, type=RunnerSettings)
    if settings.limits != ProcessLimits():
        apply_limits(settings.limits)
    if settings.kind == "sync":
        SyncRunner(sock, settings).run()
    else:
        runner = AsyncRunner(sock, settings)
        anyio.run(runner.run, backend_options={"use_uvloop": True})
