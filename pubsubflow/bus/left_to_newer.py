"""Count and log of what this daemon leaves to peers of a newer version, as it cannot read it."""

import structlog

from pubsubflow.bus.messages import Delivery, Message
from pubsubflow.errors import NewerFormat
from pubsubflow.instruments import Counter
from pubsubflow.model.wire.protocol import PROTOCOL, needed_protocol

log = structlog.get_logger(__name__)

_FIRST_SECONDS = 0.25
_MOST_DOUBLINGS = 4
_KINDS = ("message", "request", "notice", "stored")


class LeftToNewer:
    """Counts what is left to daemons of a newer version, and logs each reason once.

    Attributes:
        counter: How often something was left, by what it is.
    """

    def __init__(self) -> None:
        self.counter = Counter(
            "pubsubflow_left_to_newer",
            "Deliveries, requests and commands left to a daemon of a newer version, as this one "
            "cannot read them.",
            ("what",),
        )
        for what in _KINDS:  # a first one must show as an increase
            self.counter.add(0, what)
        self._logged: set[str] = set()

    def __len__(self) -> int:
        """Return how often something was left."""
        return int(sum(count for _, count in self.counter.read()))

    def takes(self, message: Message | Delivery, header: bytes) -> bool:
        """Return whether a message must be left; a delivery is returned to its stream then.

        Args:
            message: A message that has headers.
            header: These, encoded.
        """
        protocol = needed_protocol(header)
        if protocol <= PROTOCOL:
            return False
        if isinstance(message, Delivery):
            what = "message"
            doublings = min(message.attempts - 1, _MOST_DOUBLINGS)
            message.nak(_FIRST_SECONDS * (1 << doublings))
        else:
            what = "request" if message.wants_reply else "notice"
        error = NewerFormat(f"a message of protocol {protocol}")
        self.note(what, str(error), subject=message.subject)
        return True

    def note(self, what: str, reason: str, *, subject: str) -> None:
        """Note that something was left.

        Args:
            what: `message`, `request`, `notice` or `stored`.
            reason: Why this daemon cannot read it; one line, of few different ones.
            subject: Where it came from.
        """
        self.counter.add(1, what)
        if reason not in self._logged:
            self._logged.add(reason)
            log.warning("bus.left_to_newer", what=what, reason=reason, subject=subject)
