"""Learning: what attempts had to import is imported before the next fork, so that it finds it."""

import importlib
import importlib.util
import itertools
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path

_MOST_BYTES = 60_000
# Of distributions, or of Python itself.
_INSTALLED = ("site-packages", "dist-packages", f"{Path(os.__file__).parent}/")


class Learning:
    """Modules of Python and of installed packages that attempts imported: most of their time.

    Modules of the team are never imported early: their side effects are the attempt's.

    Attributes:
        spoilt: Whether a module has started a thread: then it must not go on forking.
    """

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._known = 0
        self._refused: set[str] = set()
        self.spoilt = False

    def begin(self) -> None:
        """In a child: remember how much is imported before the attempt."""
        # Not what: to hold a thousand names is to write to a page of the parent for each.
        self._known = len(sys.modules)

    def end(self) -> None:
        """In a child: report to the parent what the attempt has imported."""
        number = len(sys.modules) - self._known
        if number > 0:  # what is imported later stands later
            names = "\n".join(itertools.islice(reversed(sys.modules), number))
            with suppress(OSError):
                os.write(self._write, f"{names}\n".encode()[:_MOST_BYTES])

    def learn(self) -> bool:
        """In the parent: import what children have reported; return whether there was something."""
        if self.spoilt:
            return False
        number = len(sys.modules)
        with suppress(BlockingIOError):
            reported = os.read(self._read, 1 << 20).decode(errors="replace")
            for name in filter(None, reported.split("\n")):
                self._import(name)
        return len(sys.modules) > number

    def _import(self, name: str) -> None:
        if name in sys.modules or name in self._refused:
            return
        try:
            spec = importlib.util.find_spec(name)
            origin = "" if spec is None else str(spec.origin)
            if any(part in origin for part in _INSTALLED):
                importlib.import_module(name)
        except Exception:  # noqa: BLE001 - the attempt that needs it imports it itself
            self._refused.add(name)
        self.spoilt = self.spoilt or threading.active_count() > 1
