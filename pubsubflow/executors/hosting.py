"""Hosts: warm processes that run many attempts, for executors that cannot start one for each.

An executor starts `python *HOST_ARGUMENTS`, writes orders to its input, a line of JSON each, and
reads a line from its output for each attempt that has ended. The end of its input without a `Drain`
is the loss of what started it: what runs is ended as crashed. Where the executor has a
`ResultKeeper`, large results go both ways in files, which the side that reads them removes.
"""

from pathlib import Path

import msgspec
from msgspec import Struct

HOST_ARGUMENTS = ("-m", "pubsubflow.worker.executors.host")
"""What follows `python` on the command line of a host; the number of its slots follows them, then
a folder for large results, if these are kept."""


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


class KeptFile(Struct, frozen=True, tag="reply"):
    """The reply to a `FetchKept`.

    Attributes:
        number: Of the request.
        path: A file with the result; empty for none.
        error: Why it cannot be read now; empty if it is lost for good.
    """

    number: int
    path: str = ""
    error: str = ""


class Ended(Struct, frozen=True, tag="ended"):
    """An attempt has ended.

    Attributes:
        name: Its name.
        exit_code: As that of a process: `DONE` or `NOT_BEGUN`.
        reason: Why it did not begin, for people; empty if there is nothing to say.
        result: A file with its encoded result, which is to be kept; empty for none.
    """

    name: str
    exit_code: int
    reason: str = ""
    result: str = ""


class FetchKept(Struct, frozen=True, tag="request"):
    """A result is requested that the executor keeps; the reply is a `KeptFile`.

    Attributes:
        number: Of the request.
        name: Of the result, with its keeper.
    """

    number: int
    name: str


HostOrder = Prepare | Begin | Stop | Drain | KeptFile


def read_once(path: str) -> bytes:
    """Return what is in the file of a result, and remove it.

    Raises:
        OSError: It cannot be read.
    """
    data = Path(path).read_bytes()
    Path(path).unlink(missing_ok=True)
    return data


encode_line = msgspec.json.Encoder().encode
decode_order = msgspec.json.Decoder(HostOrder).decode
decode_ended = msgspec.json.Decoder(Ended).decode
decode_report = msgspec.json.Decoder(Ended | FetchKept).decode
