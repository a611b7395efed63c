"""Sweep of kept results: an executor keeps those of runs that have ended no longer."""

import anyio
import structlog

from pubsubflow.executors import Executor
from pubsubflow.model.wire.stored_results import run_of_kept
from pubsubflow.model.wire.worker_requests import LiveRunsRequest, decode_live_runs
from pubsubflow.worker.manager_client import ManagerClient

log = structlog.get_logger(__name__)

_SECONDS = 5.0
_IDLE_SECONDS = 60.0


class KeptSweep:
    """Looks for results of runs that have ended, while any are kept.

    Nothing else releases them, so it matters neither how a run ended nor which worker or daemon was
    there: any worker that offers the executor finds what is left.

    Args:
        executor: Keeps them.
        managers: Know which runs have ended.
    """

    def __init__(self, executor: Executor, managers: ManagerClient) -> None:
        self._executor = executor
        self._managers = managers
        self._kept = anyio.Event()

    def wake(self) -> None:
        """Note that there is a result to look after."""
        self._kept.set()

    async def run(self) -> None:
        """Look again and again."""
        while True:
            left, self._kept = True, anyio.Event()
            try:
                left = await self.release()
            except Exception as error:  # noqa: BLE001 - a plugin may raise anything
                log.warning("executor.results_not_released", error=str(error))
            if left:
                await anyio.sleep(_SECONDS)
                continue
            with anyio.move_on_after(_IDLE_SECONDS):
                await self._kept.wait()
                await anyio.sleep(_SECONDS)

    async def release(self) -> bool:
        """Release the results of runs that have ended; return whether some are left."""
        names = await self._executor.find_results()
        if not names:
            return False
        runs = tuple({run_of_kept(name) for name in names})
        reply = await self._managers.request(LiveRunsRequest(runs))
        if reply.error is not None:
            # A manager of the version before: what is kept waits for one that knows.
            log.info("executor.results_not_judged", error=reply.error)
            return True
        live = set(decode_live_runs(reply.data))
        ended = [name for name in names if run_of_kept(name) not in live]
        await self._executor.release_results(ended)
        return len(ended) < len(names)
