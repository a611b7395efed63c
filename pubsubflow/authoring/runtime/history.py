"""What a task has recorded, and whether a function that runs again keeps to it.

What the function does itself has keys by position, so another path is found out at once. What it
does side by side (in other asyncio tasks) has keys by label, arguments and occurrence: which of
two comes first is chance there.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from pubsubflow.authoring.runtime import results
from pubsubflow.errors import ReplayMismatch
from pubsubflow.model.runs.waits import BESIDE, START
from pubsubflow.model.wire.messages import Step

Kind = Literal["step", "wait"]
_MANY = 5
_RULE = (
    "between its steps and waits a function must not depend on time, chance or anything that "
    "changes; put that into ctx.step(), or clear the task after a change of its code"
)


class Record:
    """A record that is asked, entry by entry, while its function runs again.

    Args:
        steps: What is recorded, in order.
    """

    def __init__(self, steps: Iterable[Step] = ()) -> None:
        self._steps = {step.key: step for step in steps}
        self._unasked = dict(self._steps)
        self._position = 0
        self._beside: Counter[str] = Counter()

    def start(self) -> Step | None:
        """Return what came of the wait before the function's first line."""
        self._unasked.pop(START, None)
        return self._steps.get(START)

    def next_key(self) -> str:
        """Return the key of the next thing that the function does itself."""
        key = str(self._position)
        self._position += 1
        return key

    def next_key_beside(self, label: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """Return the key of a step in another asyncio task than the function's."""
        told = "".join((label, *_digest(args, kwargs)))
        key = f"{BESIDE}{told}{BESIDE}{self._beside[told]}"
        self._beside[told] += 1
        return key

    def ask(self, key: str, kind: Kind, label: str) -> Step | None:
        """Return what is recorded under a key, if anything is.

        Raises:
            ReplayMismatch: Something else is.
        """
        found = self._steps.get(key)
        self._unasked.pop(key, None)
        if found is not None and (found.kind, found.label) != (kind, label):
            raise ReplayMismatch(
                f"before, this task came to {_told(found.kind, found.label)} here, and now to "
                f"{_told(kind, label)}: {_RULE}"
            )
        return found

    @property
    def unasked(self) -> int:
        """How many entries the function has not come to yet."""
        return len(self._unasked)

    def check(self, where: str) -> None:
        """Make sure that the function came to everything that it came to before.

        Args:
            where: Where it is now, for people.

        Raises:
            ReplayMismatch: It did not.
        """
        if not self._unasked:
            return
        missing = [_told(step.kind, step.label) for step in self._unasked.values()]
        more = f" and {len(missing) - _MANY} more" if len(missing) > _MANY else ""
        raise ReplayMismatch(
            f"before, this task came to {', '.join(missing[:_MANY])}{more}, and now it came to "
            f"{where} without: {_RULE}"
        )


def _told(kind: str, label: str) -> str:
    return f"{kind} {label!r}"


def _digest(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterable[str]:
    """Tell apart what has the same label but other arguments, as far as these can be encoded."""
    if not args and not kwargs:
        return
    digest = hashlib.blake2b(digest_size=8)
    for name, value in [*enumerate(args), *sorted(kwargs.items())]:
        try:
            data = results.encode(value)[0]
        except results.BadResult:
            continue
        digest.update(f"{name}:{len(data)}:".encode() + data)
    yield f"#{digest.hexdigest()}"
