"""The coroutines of commands run without an event loop, whose import would take longer."""

from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def complete(steps: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that awaits nothing but a client that blocks; return its result.

    Raises:
        RuntimeError: It awaits something that needs an event loop.
    """
    try:
        steps.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    steps.close()
    raise RuntimeError(f"{steps!r} waits for an event loop: run it on one")
