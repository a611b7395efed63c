"""The event loop of the commands that need one; others run without, see `coroutines`."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def on_event_loop(command: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Return a command that runs on an event loop of its own."""

    @wraps(command)
    def run(*arguments: P.args, **options: P.kwargs) -> T:
        return asyncio.run(command(*arguments, **options))

    return run
