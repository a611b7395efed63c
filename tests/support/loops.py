"""Event loops of tests: what a loop listens to is what the kernel watches for it."""

import asyncio
import sys
import weakref
from pathlib import Path

_loops: weakref.WeakSet[asyncio.SelectorEventLoop] = weakref.WeakSet()


class RememberingPolicy(asyncio.DefaultEventLoopPolicy):
    """Remembers the loops that it makes."""

    def new_event_loop(self):
        loop = super().new_event_loop()
        _loops.add(loop)
        return loop


def check_loops() -> None:
    """Fail if a loop believes to listen to a descriptor for which the kernel does not wake it.

    Whoever closes a descriptor and leaves it registered makes the loop deaf to the next one of that
    number, which it takes for one that is watched. Tests share a loop: another test waits for ever.
    """
    if sys.platform == "linux":
        deaf = [text for loop in list(_loops) if not loop.is_closed() for text in _deaf(loop)]
        assert not deaf, f"closed, and still registered: {deaf}"


def _deaf(loop: asyncio.SelectorEventLoop) -> list[str]:
    selector = loop._selector
    lines = Path(f"/proc/self/fdinfo/{selector.fileno()}").read_text().splitlines()
    watched = {int(line.split()[1]) for line in lines if line.startswith("tfd:")}
    lost = [key for key in selector.get_map().values() if key.fd not in watched]
    for key in lost:
        selector.unregister(key.fd)  # others are not to fail by it
    return [f"{key.fd}, {key.data}" for key in lost]
