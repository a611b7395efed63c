"""Attempt process: a worker of one order, which an executor starts anywhere that reaches NATS.

It fetches the order under its subject, and the code from a manager; a runner, which it forks,
executes the task. Output, events and result go over NATS under the attempt's fence. It exits with
`DONE` once all of that is stored, and with `NOT_BEGUN` if another process may do the same.
"""

import os
import signal
import sys
from pathlib import Path

import anyio
import msgspec
import structlog

from pubsubflow.errors import BusUnavailable, ConfigError, PubsubflowError
from pubsubflow.executors import BEGUN, BEGUN_FILE, DONE, NOT_BEGUN
from pubsubflow.runner.task_account import set_inspectable
from pubsubflow.worker.executors.orders import OrderRunner
from pubsubflow.worker.executors.settings import ENVIRONMENT, AttemptSettings

log = structlog.get_logger(__name__)


async def _stop_on_signal(orders: OrderRunner, subject: str) -> None:
    """Hand the task back when the machine orders the process to end: no attempt is counted."""
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            orders.stop(subject)


def _note_begin(file: Path | None) -> None:
    """Write that lines of the task may run from here on."""
    if file is not None:
        try:
            file.write_text(BEGUN, encoding="utf-8")
        except OSError as error:
            log.warning("attempt.begin_not_noted", file=str(file), error=str(error))


async def main(settings: AttemptSettings, begun_file: Path | None) -> int:
    """Run an attempt, and return the exit code of the process."""
    code = NOT_BEGUN
    try:
        async with OrderRunner.open(settings) as orders, anyio.create_task_group() as group:
            data = await orders.read(settings.subject)
            if data is None:
                return DONE
            group.start_soon(_stop_on_signal, orders, settings.subject)
            _note_begin(begun_file)
            code = await orders.run(settings.subject, data, again=settings.again)
            group.cancel_scope.cancel()
    except* (BusUnavailable, ConfigError) as errors:
        for error in leaves(errors):
            log.error("attempt.not_begun", error=str(error))  # noqa: TRY400 - it says all
    return code


def leaves(group: BaseExceptionGroup[PubsubflowError]) -> list[BaseException]:
    """Return the exceptions of a group and of those in it."""
    return [
        leaf
        for each in group.exceptions
        for leaf in (leaves(each) if isinstance(each, BaseExceptionGroup) else [each])
    ]


def run() -> None:
    """Run the attempt that the environment describes; the entry point of the process."""
    text, file = os.environ.pop(ENVIRONMENT, ""), os.environ.pop(BEGUN_FILE, "")
    # It holds credentials of NATS, and so does the memory.
    set_inspectable(allowed=False)
    try:
        settings = msgspec.json.decode(text, type=AttemptSettings)
    except msgspec.MsgspecError as error:
        sys.exit(f"pubsubflow: {ENVIRONMENT} does not describe an attempt: {error}")
    sys.exit(
        anyio.run(
            main, settings, Path(file) if file else None, backend_options={"use_uvloop": False}
        )
    )


if __name__ == "__main__":
    run()
