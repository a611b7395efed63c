"""Tests of connections: the check of a type, in a child process under a time limit."""

import time

import anyio
import msgspec

from pubsubflow.child_calls.connection_check import CheckOutcome, CheckRequest
from pubsubflow.child_calls.parent import call_in_child
from pubsubflow.exit_codes import describe_exit
from pubsubflow.model.api.connection_types import ConnectionType, misfits
from pubsubflow.model.api.connections import ConnectionTestView
from pubsubflow.model.connections import MASK, Connection
from pubsubflow.runner.task_account import TaskAccount

_TARGET = "pubsubflow.child_calls.connection_check:run_check"
_decode = msgspec.json.Decoder(CheckOutcome).decode


async def try_connection(
    connection: Connection,
    declared: ConnectionType,
    seconds: float,
    account: TaskAccount | None = None,
) -> ConnectionTestView:
    """Check a connection, and return what it came to; no secret is in it.

    Args:
        connection: With its secrets.
        declared: Its type.
        seconds: The time limit.
        account: The account of the process; None for the daemon's own.
    """
    started = time.monotonic()
    faults = misfits(connection, declared)
    if faults:
        outcome = CheckOutcome(ok=False, text="; ".join(faults))
    elif declared.check is None:
        outcome = CheckOutcome(
            ok=True, text=f"type {declared.name} has no check: nothing was tried"
        )
    else:
        outcome = await _call(CheckRequest(declared.check, connection), seconds, account)
    text = outcome.text
    # Drivers like to show what they were given.
    for secret in sorted(connection.redacted_values(), key=len, reverse=True):
        text = text.replace(secret, MASK)
    return ConnectionTestView(
        name=connection.name,
        type=declared.name,
        ok=outcome.ok,
        outcome=text,
        seconds=round(time.monotonic() - started, 3),
    )


async def _call(request: CheckRequest, seconds: float, account: TaskAccount | None) -> CheckOutcome:
    async with call_in_child(_TARGET, request, seconds, account) as lines:
        try:
            with anyio.fail_after(seconds):
                async for line in lines:
                    return _decode(line)
                code = await lines.wait()
        except TimeoutError:
            return CheckOutcome(ok=False, text=f"no answer within {seconds:g} s")
    return CheckOutcome(ok=False, text=f"the check ended its process: {describe_exit(code)}")
