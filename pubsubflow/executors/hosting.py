"""Hosts: warm processes that run many attempts, for executors that cannot start one for each.

An executor starts `python *HOST_ARGUMENTS`, writes orders to its input, a line of JSON each, and
reads a line from its output for each attempt that has ended. The end of its input without a `Drain`
is the loss of what started it: what runs is ended as crashed.
"""

import msgspec
from msgspec import Struct

HOST_ARGUMENTS = ("-m", "pubsubflow.worker.executors.host")
"""What follows `python` on the command line of a host; the number of its slots follows them."""


class Prepare(Struct, frozen=True, tag="prepare"):
    """Get an attempt ready: read its order, and open what it needs. It does not begin yet.

    Attributes:
        name: A name of the executor's, of one attempt.
        environment: What the process of the attempt would get; secret.
    """

    name: str
    environment: dict[str, str]


class Begin(Struct, frozen=True, tag="begin"):
    """Begin an attempt that was prepared."""

    name: str


class Stop(Struct, frozen=True, tag="stop"):
    """Order an attempt to end, as SIGTERM does: it is handed back, with its grace."""

    name: str


class Drain(Struct, frozen=True, tag="drain"):
    """Order all to end so, and the host then."""


class Ended(Struct, frozen=True):
    """An attempt has ended.

    Attributes:
        name: Its name.
        exit_code: As that of a process: `DONE` or `NOT_BEGUN`.
        reason: Why it did not begin, for people; empty if there is nothing to say.
    """

    name: str
    exit_code: int
    reason: str = ""


HostOrder = Prepare | Begin | Stop | Drain

encode_line = msgspec.json.Encoder().encode
decode_order = msgspec.json.Decoder(HostOrder).decode
decode_ended = msgspec.json.Decoder(Ended).decode
