"""Results in a cluster: what a Dask worker does with the large results that its host hands over.

A result is that of the future of its attempt, which a published dataset keeps: Dask holds it in
memory or on disk, and moves it when workers close. It goes between host and Dask worker as a file.
"""

import asyncio
import contextlib
import logging
import tempfile
import time
from itertools import count
from pathlib import Path
from typing import Any

from distributed import Client, wait
from distributed.client import FuturesCancelledError

from pubsubflow.dask.names import result_of
from pubsubflow.executors.hosting import FetchKept, KeptFile, read_once

log = logging.getLogger("distributed.pubsubflow")

_CONNECT_SECONDS = 10.0
_CLOSE_SECONDS = 3.0
_LOOK_SECONDS = 0.5
# The future of an attempt ends a moment after its task.
_END_SECONDS = 30.0
_HELD = ("memory", "processing")


class KeptInCluster:
    """Reads results that are kept in the cluster of a Dask worker.

    Args:
        worker: The Dask worker.

    Attributes:
        folder: Of the files; Dask removes it with the worker's own.
    """

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self._client: Any = None
        self._connecting = asyncio.Lock()
        self._numbers = count(1)
        self.folder = tempfile.mkdtemp(prefix="pubsubflow-", dir=worker.local_directory)

    async def find(self, request: FetchKept) -> KeptFile:
        """Return where a result is now, or why it is not."""
        try:
            data = await self._read(request.name)
            if data is None:
                return KeptFile(request.number)
            path = Path(self.folder) / f"w{next(self._numbers)}"
            await asyncio.to_thread(path.write_bytes, data)
        except Exception as error:  # noqa: BLE001 - the task that waits must get a reply
            return KeptFile(request.number, error=f"{type(error).__name__}: {error}")
        return KeptFile(request.number, str(path))

    async def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._client.close(), _CLOSE_SECONDS)

    async def _read(self, name: str) -> bytes | None:
        """Return a result; None if it is lost.

        Raises:
            OSError: The scheduler is away.
            TimeoutError: It does not end.
        """
        client = await self._connected()
        future = await client.get_dataset(result_of(name), default=None)
        if future is None:
            return None
        reading = asyncio.ensure_future(future.result())
        give_up_at = time.monotonic() + _END_SECONDS
        try:
            while not (await asyncio.wait({reading}, timeout=_LOOK_SECONDS))[0]:
                state = (await client.scheduler.get_task_status(keys=[future.key]))[future.key]
                if state == "processing" and time.monotonic() > give_up_at:
                    raise TimeoutError("the attempt that has returned it does not end")  # noqa: TRY301
                if state not in _HELD:
                    # Dask may run its attempt again, which ends that at once, or never.
                    return None
            data = reading.result()
        except Exception:
            if future.status == "error":
                return None
            raise
        finally:
            reading.cancel()
        return None if data is None else bytes(data)

    async def _connected(self) -> Any:
        # A client of its own: that of the worker may be one that a user's task has made.
        async with self._connecting:
            if self._client is None or self._client.status != "running":
                worker = self._worker
                self._client = await Client(
                    worker.scheduler.address,
                    asynchronous=True,
                    set_as_default=False,
                    direct_to_workers=True,
                    timeout=_CONNECT_SECONDS,
                    name="pubsubflow-results",
                    security=worker.security,
                )
            return self._client


async def wait_for(future: Any) -> None:
    """Wait until a future is not pending any more: it has ended, or its client is lost."""
    with future.client.as_current():
        waiting: Any = wait([future])
    try:
        await waiting
    except FuturesCancelledError:
        return


async def read_result(path: str) -> bytes | None:
    """Return what a host has left in a file, and remove it; None for no path, or if it is gone."""
    if not path:
        return None
    try:
        return await asyncio.to_thread(read_once, path)
    except OSError as error:
        # Tasks take the copy, or are told that it is lost.
        log.warning("a result is not kept: %s", error)
        return None
