"""Journal history: the recorded entries that a function must meet again when it is replayed.

Entries of the function itself have keys by position, so a different path is found at once. Entries
of concurrent code (other asyncio tasks) have keys by label, arguments and occurrence: which of two
comes first is chance there.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from pubsubflow.authoring.runtime import results
from pubsubflow.errors import ReplayMismatch
from pubsubflow.model.runs.polling import looks_of
from pubsubflow.model.wire.messages import JournalEntry
from pubsubflow.model.wire.waits import CONCURRENT, POLL, START

Kind = Literal["step", "wait"]
_MOST_NAMED = 5
_RULE = (
    "between its steps and waits a function must be deterministic; put what depends on time or "
    "chance into ctx.step(), and clear the task after a change of its code"
)


class JournalHistory:
    """The recorded entries of a task, visited one by one while its function runs again.

    Args:
        entries: The recorded entries, in order.

    Attributes:
        start: The entry of the wait before the function starts, if there is one.
        looks: Of a polling sensor, how often it has looked.
    """

    def __init__(self, entries: Iterable[JournalEntry] = ()) -> None:
        self._entries = {entry.key: entry for entry in entries}
        self._unvisited = dict(self._entries)
        self.start = self._unvisited.pop(START, None)
        polled = self._unvisited.pop(POLL, None)
        self.looks = 0 if polled is None else looks_of(polled)
        self._position = 0
        self._occurrences: Counter[str] = Counter()

    def next_key(self) -> str:
        """Return the key of the function's own next step or wait."""
        key = str(self._position)
        self._position += 1
        return key

    def next_concurrent_key(
        self, label: str, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> str:
        """Return the key of a step in another asyncio task than the function's own."""
        name = "".join((label, *_digest(args, kwargs)))
        key = f"{CONCURRENT}{name}{CONCURRENT}{self._occurrences[name]}"
        self._occurrences[name] += 1
        return key

    def find(self, key: str, kind: Kind, label: str) -> JournalEntry | None:
        """Return the entry under a key, if there is one, and count it as visited.

        Raises:
            ReplayMismatch: The entry is of another kind or label.
        """
        found = self._entries.get(key)
        self._unvisited.pop(key, None)
        if found is not None and (found.kind, found.label) != (kind, label):
            raise ReplayMismatch(
                f"this task reached {_described(found.kind, found.label)} here before, and now "
                f"{_described(kind, label)}: {_RULE}"
            )
        return found

    @property
    def unvisited(self) -> int:
        """Number of entries that the function has not reached yet."""
        return len(self._unvisited)

    def check(self, where: str) -> None:
        """Check that the function has reached every recorded entry.

        Args:
            where: Its present position, for people.

        Raises:
            ReplayMismatch: It has not.
        """
        if not self._unvisited:
            return
        missing = [_described(entry.kind, entry.label) for entry in self._unvisited.values()]
        more = f" and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else ""
        raise ReplayMismatch(
            f"this task reached {', '.join(missing[:_MOST_NAMED])}{more} before, and now it "
            f"reached {where} without: {_RULE}"
        )


def _described(kind: str, label: str) -> str:
    return f"{kind} {label!r}"


def _digest(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterable[str]:
    """Yield a digest of a step's arguments, as far as these can be encoded."""
    if not args and not kwargs:
        return
    digest = hashlib.blake2b(digest_size=8)
    for name, value in [*enumerate(args), *sorted(kwargs.items())]:
        try:
            data = results.encode(value)[0]
        except results.UnsupportedResult:
            # Such as a lambda: the label must distinguish the steps then.
            continue
        # Names and lengths delimit the arguments: ("ab", "c") is not ("a", "bc").
        digest.update(f"{name}:{len(data)}:".encode() + data)
    yield f"#{digest.hexdigest()}"
