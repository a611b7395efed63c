"""The check of a connection, in a child process."""

import asyncio
from collections.abc import Iterator
from importlib import import_module

import msgspec
from msgspec import Struct

from pubsubflow.model.connections import Connection


class CheckRequest(Struct, frozen=True):
    """The argument of `run_check`.

    Attributes:
        check: `package.module:function`.
        connection: With its secrets.
    """

    check: str
    connection: Connection


class CheckOutcome(Struct, frozen=True):
    """What a check came to, in one line."""

    ok: bool
    text: str


_decode = msgspec.json.Decoder(CheckRequest).decode


def run_check(argument: bytes) -> Iterator[CheckOutcome]:
    """Call the check of a connection's type; yield what it came to."""
    request = _decode(argument)
    module, _, name = request.check.partition(":")
    try:
        text = asyncio.run(getattr(import_module(module), name)(request.connection))
    except BaseException as error:  # noqa: BLE001 - whatever a plugin's check raises is an outcome
        yield CheckOutcome(ok=False, text=_line(f"{type(error).__name__}: {error}"))
    else:
        yield CheckOutcome(ok=True, text=_line(str(text)))


def _line(text: str) -> str:
    return " ".join(text.split())[:1000]
