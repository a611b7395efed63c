"""Claims: the events of a scheduler that say which attempts have begun.

All requests of a call go over one connection without waiting for replies in between: a scheduler
handles what comes over a connection in its order.
"""

from collections.abc import Iterable, Sequence
from typing import Any

_ANSWERS = (True, False, None)


async def claim(scheduler: Any, names: Sequence[str]) -> bool:
    """Note that attempts have begun; return whether one of them had before.

    Args:
        scheduler: Requests to it, of a client or a worker.
        names: Of the claims.

    Raises:
        OSError: The scheduler cannot be reached, or does not know events.
    """
    requests = [(each, name) for name in names for each in ("event_is_set", "event_set")]
    replies = await _send(scheduler, requests)
    return True in replies[::2]


async def release(scheduler: Any, names: Iterable[str]) -> None:
    """Forget claims.

    Raises:
        OSError: The scheduler cannot be reached, or does not know events.
    """
    await _send(scheduler, [("event_clear", name) for name in names])


async def _send(scheduler: Any, requests: Sequence[tuple[str, str]]) -> list[Any]:
    """Send requests, and return the replies in their order."""
    pool, address = scheduler.pool, scheduler.address
    connection = await pool.connect(address)
    try:
        for operation, name in requests:
            await connection.write({"op": operation, "name": name, "reply": True})
        replies = [await connection.read() for _ in requests]
    except BaseException:
        # Replies that still come must not be taken for those of the next request.
        connection.abort()
        raise
    finally:
        pool.reuse(address, connection)
    for each in replies:
        if each not in _ANSWERS:
            raise OSError(f"the Dask scheduler at {address} refuses a claim: {each}")
    return replies
