"""Children of triggers: each process is noted with the trigger whose code has started it."""

import subprocess
from typing import Any

from pubsubflow.triggerer.host.trigger_run import CURRENT


def record_children() -> None:
    """Note from now on which run starts a process, also in its threads and asyncio tasks."""
    begin = subprocess.Popen.__init__

    def begin_as_trigger(self: Any, *args: Any, **options: Any) -> None:
        begin(self, *args, **options)
        run = CURRENT.get()
        if run is not None:
            # A watch may start one after the other for months.
            run.children[:] = [each for each in run.children if each.returncode is None]
            run.children.append(self)

    # Children of asyncio come by it as well, in the context of the task that starts them.
    subprocess.Popen.__init__ = begin_as_trigger  # type: ignore[method-assign]
