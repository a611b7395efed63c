"""Run numbers, taken from the store in blocks."""

from collections import deque

from pubsubflow.store.manager_transaction import FoldTransaction

NUMBERS_A_BLOCK = 1000


class Numbers:
    """Hands out run numbers; every manager has blocks of its own."""

    def __init__(self) -> None:
        self._blocks: deque[range] = deque()
        self._left = 0

    async def reserve(self, transaction: FoldTransaction, count: int) -> None:
        """Make sure that `count` numbers are at hand.

        A transaction that is rolled back loses no number for good: sequences do not roll back.
        """
        while self._left < count:
            first = (await transaction.fetch("take_run_numbers"))[0][0]
            self._blocks.append(range(first, first + NUMBERS_A_BLOCK))
            self._left += NUMBERS_A_BLOCK

    def take(self) -> int:
        """Return a number that was reserved."""
        block = self._blocks.popleft()
        if len(block) > 1:
            self._blocks.appendleft(block[1:])
        self._left -= 1
        return block[0]
