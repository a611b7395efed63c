"""Offers: the executors of plugins that a worker offers beside its own processes."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import anyio

from pubsubflow.errors import ConfigError
from pubsubflow.model.wire.executor_spec import LOCAL, ExecutorSpec, bundle_queue, executor_queue
from pubsubflow.worker.executors.settings import OfferedExecutor
from pubsubflow.worker.settings import WorkerSettings

_CLOSE_SECONDS = 5.0


class ExecutorOffers:
    """The executors that a worker offers.

    Args:
        executors: Those of plugins.
        settings: The worker's.

    Raises:
        ConfigError: The settings name an executor that is not among these, or allow no task.

    Attributes:
        queues: The queues that the worker serves, those of executors among them.
        usual: The executor of tasks that name none; None for the worker's own processes.
        of_bundles: Those of them for tasks of bundles of Airflow's files.
        serves_plain: Whether it takes tasks that name none.
    """

    def __init__(
        self,
        executors: Sequence[OfferedExecutor],
        settings: WorkerSettings,
        bundles: Sequence[str] = (),
    ) -> None:
        self._executors = executors
        names = [each.name for each in executors]
        if settings.executor not in (LOCAL, *names):
            raise ConfigError(
                f"configuration: worker.executor is {settings.executor!r}, which is not offered: "
                f"add a section [executors.{settings.executor}]"
            )
        if settings.only_executors and not names:
            raise ConfigError(
                "configuration: worker.only_executors is set, and no executor is offered: add a "
                "section [executors.NAME]"
            )
        self.usual = None if settings.executor == LOCAL else settings.executor
        self.serves_plain = self.usual is not None or not settings.only_executors
        self.of_bundles = tuple(
            bundle_queue(queue, name) for queue in settings.queues for name in bundles
        )
        self.queues = (
            *(settings.queues if self.serves_plain else ()),
            *(self.queue(queue, name) for queue in settings.queues for name in names),
            *self.of_bundles,
        )

    def __iter__(self) -> Iterator[OfferedExecutor]:
        """Iterate over the executors."""
        return iter(self._executors)

    @property
    def slots(self) -> int:
        """How many attempts run by executors at once."""
        return sum(each.slots for each in self._executors)

    @staticmethod
    def queue(queue: str, name: str) -> str:
        """Return the name of a queue's part for an executor."""
        return executor_queue(queue, ExecutorSpec(name))

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Keep the executors open for the length of the block.

        Raises:
            ConfigError: The settings of one cannot work.
        """
        async with AsyncExitStack() as stack:
            for each in self._executors:
                stack.push_async_callback(_close, each)
                await each.executor.open()
            yield


async def _close(offered: OfferedExecutor) -> None:
    with anyio.move_on_after(_CLOSE_SECONDS, shield=True):
        await offered.executor.close()
