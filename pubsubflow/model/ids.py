"""Public identifiers: UUIDs of version 7, ordered by time (RFC 9562 §5.7)."""

import os
import time
from uuid import UUID

_MASK = (1 << 62) - 1


class UUID7:
    """Generator of UUIDs that increase, also within one millisecond.

    The 12 bits after the time hold the fraction of the millisecond (RFC 9562 §6.2, method 3).
    """

    def __init__(self) -> None:
        self._last = 0

    def __call__(self) -> UUID:
        """Return the next identifier."""
        return UUID(int=self._next())

    def text(self) -> str:
        """Return the next identifier as text, at half the cost."""
        digits = f"{self._next():032x}"
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"

    def _next(self) -> int:
        ticks = time.time_ns() * 4096 // 1_000_000
        # The clock may stand still or go back: identifiers still increase.
        self._last = ticks = max(ticks, self._last + 1)
        milliseconds, fraction = ticks >> 12, ticks & 0xFFF
        chance = int.from_bytes(os.urandom(8)) & _MASK
        return milliseconds << 80 | 7 << 76 | fraction << 64 | 2 << 62 | chance


new_id = UUID7()
