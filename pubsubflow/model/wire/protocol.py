"""Protocol of messages: its number, and the header that says which one a message needs.

Receivers ignore fields that they do not know, so a message with a further field needs no new
protocol. One that receivers of before would misread does: PROTOCOL grows by one, and its publisher
adds the header. Without the header a message is of protocol 1.
"""

import re
from importlib.metadata import version

VERSION = version("pubsubflow")
PROTOCOL = 2
REJECTED = 2
"""The protocol of messages of triggers that are dead letters."""
PROTOCOL_HEADER = "Psf-Protocol"
PROTOCOL_MARK = b"\r\nPsf-Protocol:"
"""In the encoded headers of a message that has the header."""

_FIRST = 1
_LINE = re.compile(rb"\r\nPsf-Protocol: *(\d{1,9})\r\n")


def needed_protocol(block: bytes) -> int:
    """Return the protocol that a receiver must know, by a message's encoded headers."""
    found = _LINE.search(block)
    return _FIRST if found is None else int(found[1])
