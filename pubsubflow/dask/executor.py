"""The executor of Dask: each attempt is a future, held by a published dataset of its label."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any

import anyio

from pubsubflow.dask.names import dataset_of, key_of, result_of
from pubsubflow.dask.options import Dask, DaskSettings
from pubsubflow.dask.reasons import LOST, LOST_WORKER, why_waiting
from pubsubflow.errors import CannotStart, ConfigError
from pubsubflow.executors import (
    DONE,
    NOT_BEGUN,
    Attempt,
    AttemptExit,
    AttemptLabel,
    Executor,
    ResultKeeper,
)
from pubsubflow.model.lazy_import import lazy_module
from pubsubflow.model.wire.protocol import VERSION
from pubsubflow.model.wire.stored_results import StoredResult

# They need the extra, which is missing where nobody offers the executor.
clusters = lazy_module("pubsubflow.dask.cluster")
kept = lazy_module("pubsubflow.dask.kept")
remote = lazy_module("pubsubflow.dask.remote")
submission = lazy_module("pubsubflow.dask.submission")

_LOOK_SECONDS = 1.5
_AWAY_SECONDS = 1.0
_ANSWER_SECONDS = 10.0
_ASSIGNED = ("processing", "memory", "erred", "")
_STOPPED = AttemptExit(None, "it was stopped before it began", begun=False)
_UNKNOWN = (None, "released", "forgotten")


class _Held:
    """An attempt that we have to do with.

    Attributes:
        future: Its future; None before it was submitted, and when the client that held it is gone.
        key: The future's key.
        place: The Dask worker on which it was seen to run.
        doubts: How often in succession it seemed lost.
        give_up_at: When it is given up, as it was to stop; time of the loop.
        cancelled: Whether it was stopped before it began.
    """

    def __init__(self, label: AttemptLabel, cluster: Any, options: Dask, key: str) -> None:
        self.label = label
        self.cluster = cluster
        self.options = options
        self.future: Any = None
        self.key = key
        self.place = ""
        self.doubts = 0
        self.give_up_at = float("inf")
        self.cancelled = False


class DaskExecutor(Executor):
    """Runs attempts on the workers of Dask clusters."""

    Options = Dask
    Settings = DaskSettings
    settings: DaskSettings
    keeper: ResultKeeper

    def __init__(self, settings: DaskSettings) -> None:
        super().__init__(settings)
        self.keeper = ResultKeeper(
            f"{Dask.executor}:{settings.installation}", settings.max_result_bytes
        )
        self._clusters: dict[str, Any] = {}
        self._held: dict[AttemptLabel, _Held] = {}

    async def open(self) -> None:
        """Import Dask; schedulers are connected to when they are needed.

        Raises:
            ConfigError: The extra is not installed, or files of TLS are wrong.
        """
        try:
            import_module("distributed")
        except ImportError as error:
            raise ConfigError(
                "the executor dask needs a library: pip install 'pubsubflow[dask]'"
            ) from error
        for address in (self.settings.address, *self.settings.addresses):
            try:
                self._clusters[address] = clusters.DaskCluster(address, self.settings)
            except (OSError, ValueError) as error:
                raise ConfigError(f"executors.dask: {error}") from error

    async def close(self) -> None:
        """Close connections; the attempts go on."""
        for each in self._clusters.values():
            await each.close()

    async def start(self, attempt: Attempt) -> None:
        """Submit an attempt, unless the scheduler has it."""
        options: Dask = attempt.options
        cluster = self._cluster(options)
        label = attempt.label
        try:
            held = self._held.get(label)
            if held is not None or (attempt.again and await self._find(label)):
                return
            await self._submit(cluster, attempt)
        except clusters.SchedulerAway as error:
            raise CannotStart(str(error), again=True) from error

    async def watch(self, label: AttemptLabel, report: Callable[[str], None]) -> AttemptExit:
        """Wait until a future has ended."""
        said = _Said(report)
        away_at: float | None = None
        while True:
            try:
                held = await self._find(label)
                away_at = None
                end = AttemptExit(None, LOST) if held is None else await self._end(held, said)
            except clusters.SchedulerAway as error:
                now = anyio.current_time()
                away_at = now if away_at is None else away_at
                end = self._given_up(label, now - away_at, str(error))
                said(str(error))
                await anyio.sleep(0 if end else _AWAY_SECONDS)
            except CannotStart:
                # What Dask keeps of it is the failure: the next start must not find that.
                await self.remove(label)
                raise
            if end is not None:
                return end

    async def stop(self, label: AttemptLabel, grace_seconds: float) -> None:
        """Order an attempt to end; one that has not begun is cancelled."""
        held = self._held.get(label)
        give_up_at = anyio.current_time() + grace_seconds + _ANSWER_SECONDS
        if held is not None:
            held.give_up_at = give_up_at
        held = await self._find(label)
        if held is None:
            return
        held.give_up_at = give_up_at
        begun = await held.cluster.has_begun(label)
        if not begun:
            await held.cluster.claim(label)
        # Also if it seemed not to have begun: it may have, meanwhile.
        if await held.cluster.stop(label, held.key):
            with anyio.move_on_after(grace_seconds):
                await kept.wait_for(held.future)
        elif not begun:
            held.cancelled = True
            await held.future.cancel(force=True)

    async def find(self) -> list[AttemptLabel]:
        """Return the attempts that the schedulers keep for us."""
        return [label for each in self._clusters.values() for label in await each.find()]

    async def find_results(self) -> list[str]:
        """Return the names of the results that the schedulers keep for us."""
        keeper = self.keeper.name
        found: list[str] = []
        for each in self._clusters.values():
            # One that is away now keeps nothing, or is asked the next time.
            with suppress(clusters.SchedulerAway):
                found += await each.find_results(keeper)
        return found

    async def release_results(self, names: Sequence[str]) -> None:
        """Have the schedulers keep these results no longer."""
        for each in self._clusters.values():
            with suppress(clusters.SchedulerAway):
                known = set(await each.find_results(self.keeper.name))
                await each.release_results(known.intersection(names))

    async def read_output(self, label: AttemptLabel) -> str:  # noqa: ARG002 - of no attempt alone
        """Return nothing: what is not of the task is in the log of the Dask worker."""
        return ""

    async def remove(self, label: AttemptLabel) -> None:
        """Remove what the scheduler keeps of an attempt."""
        held = self._held.pop(label, None)
        if held is not None:
            held.cluster.waiting.discard(held.key)
            if held.future is not None:
                held.future.release()
        for each in self._clusters.values() if held is None else (held.cluster,):
            try:
                await each.forget(label)
            except clusters.SchedulerAway:
                continue  # as an orphan, once it is back

    def _cluster(self, options: Dask) -> Any:
        address = options.address or self.settings.address
        if address not in self._clusters:
            raise CannotStart(
                f"no worker may use the Dask scheduler {address!r}: add it to `addresses` of "
                "[executors.dask]",
                again=False,
            )
        return self._clusters[address]

    def _result_of(self, attempt: Attempt) -> str:
        """Return the name of the dataset that is to keep the result of an attempt."""
        label = attempt.label
        fence = label.run, label.node, label.map_index, label.attempt, label.delivery
        return result_of(StoredResult(*fence, 0, self.keeper.name).kept_name)

    async def _submit(self, cluster: Any, attempt: Attempt) -> None:
        """Submit an attempt, and hold it from when it was sent."""
        label, options = attempt.label, attempt.options
        result = self._result_of(attempt) if options.result else ""
        order = remote.AttemptOrder(label.name, dict(attempt.environment), VERSION, result)
        names = filter(None, (dataset_of(label, self.settings.installation), result))
        key = key_of(label, attempt.task_id)
        wanted = submission.Submission(key, order, options, names)
        try:
            await cluster.submit(wanted)
        finally:
            if wanted.future is not None:
                held = self._held[label] = _Held(label, cluster, options, key)
                held.future = wanted.future

    async def _find(self, label: AttemptLabel) -> _Held | None:
        """Return an attempt with a future of a live client; None if no scheduler has it."""
        held = self._held.get(label)
        if held is not None and held.future is not None:
            return held
        for each in self._clusters.values() if held is None else (held.cluster,):
            future = await each.get(label)
            if future is None:
                continue
            if held is None:
                held = self._held[label] = _Held(label, each, Dask(), future.key)
            held.future = future
            return held
        return None

    async def _end(self, held: _Held, said: "_Said") -> AttemptExit | None:
        """Wait for the end of a future; None if the client that holds it is lost."""
        future = held.future
        held.cluster.waiting.add(held.key)
        while True:
            with anyio.move_on_after(_LOOK_SECONDS):
                await kept.wait_for(future)
            if future.status == "pending":
                end = await self._look(held, said)
                if end is None:
                    continue
                return end
            held.cluster.waiting.discard(held.key)
            if future.status == "finished":
                return AttemptExit(DONE)
            if future.status == "error":
                return exit_of(await future.exception())
            held.future = None
            return _STOPPED if held.cancelled else None

    async def _look(self, held: _Held, said: "_Said") -> AttemptExit | None:
        """Say what a future waits for; return its end if it will never come."""
        if anyio.current_time() > held.give_up_at:
            await held.future.cancel(force=True)
            return AttemptExit(None, "it was to stop, and its Dask worker does not answer")
        sight = await held.cluster.look(held.key)
        lost = await self._seems_lost(held, sight)
        if lost:
            held.doubts += 1
            # Not at the first time: what was seen may be a moment older than its end.
            return AttemptExit(None, lost) if held.doubts > 1 else None
        held.doubts = 0
        if sight.state in _ASSIGNED:
            said.settle()
            return None
        workers = sight.workers
        busy = [key for key, each in workers.items() if each.get("metrics", {}).get("executing")]
        said(why_waiting(held.options, workers, busy))
        return None

    async def _seems_lost(self, held: _Held, sight: Any) -> str:
        """Return why a future that has not ended will never run; empty if it does, or may."""
        if sight.state in _UNKNOWN:
            return LOST
        if sight.state == "processing":
            if held.place:
                return "" if sight.place in ("", held.place) else LOST_WORKER
            if sight.place and await held.cluster.has_begun(held.label):
                held.place = sight.place
            return ""
        if sight.state in _ASSIGNED:
            return ""
        begun = held.place or await held.cluster.has_begun(held.label)
        return LOST_WORKER if begun else ""

    def _given_up(self, label: AttemptLabel, seconds: float, reason: str) -> AttemptExit | None:
        """Return the end of an attempt whose scheduler is away for too long."""
        held = self._held.get(label)
        overdue = held is not None and anyio.current_time() > held.give_up_at
        if overdue or seconds > self.settings.lost_seconds:
            return AttemptExit(None, reason)
        return None


class _Said:
    """Reports a reason when it has changed."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._last = ""

    def __call__(self, text: str) -> None:
        if text and text != self._last:
            self._report(text)
        self._last = text

    def settle(self) -> None:
        """Report that what was waited for is there."""
        if self._last:
            self("a Dask worker has taken it")
            self._last = ""


def exit_of(error: BaseException | None) -> AttemptExit:
    """Return how an attempt ended whose future has failed.

    Raises:
        CannotStart: It has not begun; the reason may pass.
    """
    if isinstance(error, remote.AttemptEnded):
        if error.exit_code == NOT_BEGUN and error.reason:
            raise CannotStart(error.reason, again=True)
        return AttemptExit(error.exit_code, error.reason)
    name = type(error).__name__
    if name == "KilledWorker":
        return AttemptExit(None, LOST_WORKER)
    text = " ".join(f"{name}: {error}".split())
    if isinstance(error, ImportError) or "deserialization of the task graph" in text:
        text += "; install pubsubflow[dask] where Dask workers and their scheduler run"
    raise CannotStart(f"its Dask worker cannot run it: {text}", again=True)
