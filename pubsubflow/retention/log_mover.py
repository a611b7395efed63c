"""The log mover: takes the output of ended attempts from Postgres to the log store.

A file is written first, then one transaction records it and deletes the chunks: whatever dies in
between, the next pass writes the same file again. Output that comes later gets a further file.
"""

import gzip
from collections.abc import Iterable, Iterator
from functools import partial

import anyio
import structlog
from anyio.abc import TaskStatus

from pubsubflow.errors import Unavailable
from pubsubflow.instruments import Counter, Gauge, Instrument
from pubsubflow.object_store import LogStore, ObjectStoreUnavailable
from pubsubflow.services import run_until
from pubsubflow.store.database import Connection, Database
from pubsubflow.store.objects import log_files
from pubsubflow.store.objects.log_files import START, AttemptKey, LogFile, StoredOutput
from pubsubflow.store.specs import SpecReader

log = structlog.get_logger()

_AT_ONCE = 8
_MOST_PAUSE_SECONDS = 60.0
_MOST_SEEN = 20_000


class LogMover:
    """Moves output now and then; of several daemons one is at it.

    Args:
        database: Postgres.
        store: The log store.
        every_seconds: Pause between two passes.

    Attributes:
        metrics: Its metrics.
    """

    def __init__(self, database: Database, store: LogStore, every_seconds: float) -> None:
        self._database = database
        self._store = store
        self._every_seconds = every_seconds
        self._specs = SpecReader()
        # What has ended: moved when it looks the same a pass later, as output may still come in.
        self._seen: dict[AttemptKey, StoredOutput] = {}
        self._reason = ""
        self.metrics = LogMoverMetrics()

    @property
    def available(self) -> bool:
        """Whether the log store took what it was given last."""
        return self.metrics.available

    async def run(
        self,
        stopping: anyio.Event,
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Move output until `stopping` is set."""
        await run_until(stopping, self._keep_moving, task_status=task_status)

    async def _keep_moving(self) -> None:
        pause = self._every_seconds
        while True:
            await anyio.sleep(pause)
            try:
                await self.move()
                pause = self._every_seconds
            except ObjectStoreUnavailable as error:
                pause = min(pause * 2, max(_MOST_PAUSE_SECONDS, self._every_seconds))
                self._note(available=False, reason=str(error))
            except Unavailable as error:
                log.debug("log_store.postponed", reason=str(error))

    async def move(self) -> int:
        """Move what has ended and was seen by the pass before; return the number of files.

        Raises:
            ObjectStoreUnavailable: The log store does not take it; the rest is still in Postgres.
            StoreUnavailable: Postgres is away.
        """
        moved = 0
        seen: dict[AttemptKey, StoredOutput] = {}
        async with self._database.session() as connection:
            if not await log_files.try_lock(connection):
                return 0
            try:
                after = START
                while len(seen) < _MOST_SEEN:
                    page = await log_files.list_stored_output(connection, self._specs, after)
                    if not page:
                        break
                    after, due = page[-1].key, []
                    for each in page:
                        if self._seen.get(each.key) == each:
                            due.append(each)
                        else:
                            seen[each.key] = each
                    moved += await self._move_all(connection, due)
            finally:
                if not connection.is_closed():
                    await log_files.unlock(connection)
        self._seen = seen
        return moved

    async def _move_all(self, connection: Connection, due: Iterable[StoredOutput]) -> int:
        """Write files side by side; one connection reads and records."""
        moved = 0
        for batch in _batches([each for each in due if each.folder is not None]):
            outputs = [(each, await log_files.read_output(connection, each.key)) for each in batch]
            outputs = [(each, chunks) for each, chunks in outputs if chunks]
            files: dict[AttemptKey, LogFile] = {}
            async with anyio.create_task_group() as group:
                for each, chunks in outputs:
                    group.start_soon(self._write, each, chunks, files)
            if len(files) < len(outputs):
                raise ObjectStoreUnavailable(self._reason)
            self._note(available=True)
            for each, chunks in outputs:
                counted = [(sequence, text.count("\n")) for sequence, text in chunks]
                await log_files.record_move(connection, each.key, counted, files[each.key])
            moved += len(files)
            self.metrics.moved(files.values())
        return moved

    async def _write(
        self,
        output: StoredOutput,
        chunks: list[tuple[int, str]],
        files: dict[AttemptKey, LogFile],
    ) -> None:
        *_, attempt, delivery = output.key
        name = f"{output.folder}/{attempt}.{delivery}.{chunks[0][0]}-{chunks[-1][0]}.jsonl.gz"
        text = "".join(text for _, text in chunks).encode()
        # Without a time: what is written twice is the same file.
        data = await anyio.to_thread.run_sync(partial(gzip.compress, text, mtime=0))
        try:
            await self._store.write(name, data)
        except ObjectStoreUnavailable as error:
            self._reason = str(error)
            return
        files[output.key] = LogFile(name, len(data))

    def _note(self, *, available: bool, reason: str = "") -> None:
        """Log once that the store is away, and once that it is back."""
        if available != self.metrics.available:
            self.metrics.available = available
            if available:
                log.info("log_store.recovered")
            else:
                log.warning("log_store.unavailable", reason=reason)


class LogMoverMetrics:
    """Metrics of a log mover.

    Attributes:
        available: Whether the log store took what it was given last.
    """

    def __init__(self) -> None:
        self.available = True
        self._files = Counter("pubsubflow_log_store_files", "Files written to the log store.")
        self._bytes = Counter("pubsubflow_log_store_bytes", "Bytes written to the log store.")

    def moved(self, files: Iterable[LogFile]) -> None:
        """Count files."""
        for each in files:
            self._files.add()
            self._bytes.add(each.bytes)

    def __iter__(self) -> Iterator[Instrument]:
        """Yield the metrics."""
        yield self._files
        yield self._bytes
        yield Gauge(
            "pubsubflow_log_store_available",
            "Whether the log store took what it was given last.",
            lambda: float(self.available),
        )


def _batches(outputs: list[StoredOutput]) -> Iterator[list[StoredOutput]]:
    for start in range(0, len(outputs), _AT_ONCE):
        yield outputs[start : start + _AT_ONCE]
