"""A Dask cluster: the client of one scheduler, made anew when that was away."""

from collections.abc import Awaitable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

import anyio
from distributed import Client, Security

from pubsubflow.dask.claims import release
from pubsubflow.dask.gathered import Gathered, SchedulerAway
from pubsubflow.dask.names import claim_of, dataset_of, kept_of, label_of, result_of
from pubsubflow.dask.options import DaskSettings
from pubsubflow.dask.remote import stop_attempt
from pubsubflow.dask.submission import Submission, submit_all
from pubsubflow.executors import AttemptLabel

T = TypeVar("T")

_CONNECT_SECONDS = 4.0
_CLOSE_SECONDS = 3.0
_FRESH_SECONDS = 1.0
_SEND_SECONDS = 0.002
"""A client of Dask's sends once in 10 ms; its scheduler and workers have 2 ms between messages."""


class Sight(NamedTuple):
    """What is known of a future.

    Attributes:
        state: Its state in the scheduler; None where that does not know it, empty for not known
            yet.
        place: The address of the Dask worker to which it is assigned; empty for none.
        workers: The Dask workers by address.
    """

    state: str | None
    place: str
    workers: Mapping[str, Mapping[str, Any]]


class DaskCluster:
    """One scheduler.

    Args:
        address: Its address.
        settings: How to reach it, and whose attempts are ours.

    Attributes:
        waiting: Keys of the futures whose state is of interest.
    """

    def __init__(self, address: str, settings: DaskSettings) -> None:
        self.address = address
        self._installation = settings.installation
        self._security = _security(settings)
        self._client: Any = None
        self._connecting = anyio.Lock()
        self._refreshing = anyio.Lock()
        self._states: Mapping[str, str | None] = {}
        self._places: Mapping[str, str] = {}
        self._workers: Mapping[str, Mapping[str, Any]] = {}
        self._seen_at = -_FRESH_SECONDS
        self.waiting: set[str] = set()
        self._submitted: Gathered[Submission] = Gathered(self._submit)
        self._forgotten: Gathered[str] = Gathered(self._forget)

    async def client(self) -> Any:
        """Return a client that is connected.

        Raises:
            SchedulerAway: The scheduler cannot be reached.
        """
        async with self._connecting:
            if self._client is not None:
                if self._client.status == "running":
                    return self._client
                await self.close()
            client: Any = Client(
                self.address,
                asynchronous=True,
                set_as_default=False,
                timeout=_CONNECT_SECONDS,
                name="pubsubflow",
                security=self._security,
            )
            try:
                await client
            except Exception as error:
                await _close(client)
                reason = str(error) or type(error).__name__
                raise SchedulerAway(
                    f"the Dask scheduler at {self.address} cannot be reached: {reason}"
                ) from error
            except BaseException:
                await _close(client)
                raise
            # Or an attempt that follows another one waits for the next turn.
            client.scheduler_comm.interval = _SEND_SECONDS
            self._client, self._seen_at = client, -_FRESH_SECONDS
            return client

    async def close(self) -> None:
        """Close the connection; what is published goes on."""
        client, self._client = self._client, None
        if client is not None:
            await _close(client)

    async def find(self) -> list[AttemptLabel]:
        """Return the labels of our attempts.

        Raises:
            SchedulerAway: The scheduler cannot be reached.
        """
        client = await self.client()
        names = await self._call(client.list_datasets())
        found = (label_of(name, self._installation) for name in names)
        return [label for label in found if label is not None]

    async def get(self, label: AttemptLabel) -> Any:
        """Return the future of an attempt that was published; None if there is none.

        Raises:
            SchedulerAway: The scheduler cannot be reached.
        """
        client = await self.client()
        name = dataset_of(label, self._installation)
        return await self._call(client.get_dataset(name, default=None))

    async def submit(self, submission: Submission) -> None:
        """Submit an attempt and publish its future: it goes on without us, and is found again.

        Args:
            submission: The attempt. Its future is there as soon as it was sent, whatever follows.

        Raises:
            CannotStart: Dask refuses its options.
            SchedulerAway: The scheduler cannot be reached.
        """
        await self._submitted.add({submission.key: submission})
        if submission.refusal is not None:
            raise submission.refusal

    async def find_results(self, keeper: str) -> list[str]:
        """Return the names of the results that are kept for a keeper.

        Raises:
            SchedulerAway: The scheduler cannot be reached.
        """
        client = await self.client()
        names = await self._call(client.list_datasets())
        return list(filter(None, (kept_of(name, keeper) for name in names)))

    async def release_results(self, names: Iterable[str]) -> None:
        """Keep these results no longer.

        Raises:
            SchedulerAway: The scheduler cannot be reached.
        """
        if found := {name: claim_of(name) for name in map(result_of, names)}:
            await self._forgotten.add(found)

    async def forget(self, label: AttemptLabel) -> None:
        """Remove what the scheduler keeps of an attempt.

        Raises:
            SchedulerAway: The scheduler cannot be reached.
        """
        await self._forgotten.add({dataset_of(label, self._installation): claim_of(label.name)})

    async def claim(self, label: AttemptLabel) -> None:
        """Note that an attempt has begun: no Dask worker begins it after that."""
        await self._request("event_set", name=claim_of(label.name))

    async def has_begun(self, label: AttemptLabel) -> bool:
        """Return whether a Dask worker has begun an attempt."""
        return bool(await self._request("event_is_set", name=claim_of(label.name)))

    async def stop(self, label: AttemptLabel, key: str) -> bool:
        """Order an attempt to end where it runs; return whether it was there.

        Raises:
            SchedulerAway: The scheduler cannot be reached.
        """
        client = await self.client()
        processing = await self._call(client.processing())
        at = [address for address, keys in processing.items() if key in keys]
        if not at:
            return False
        call = client.run(stop_attempt, label.name, workers=at, on_error="return")
        return True in (await self._call(call)).values()

    async def look(self, key: str) -> Sight:
        """Return what is known of a key, at most a second old; one request is for all keys.

        Raises:
            SchedulerAway: The scheduler cannot be reached.
        """
        async with self._refreshing:
            now = anyio.current_time()
            if now - self._seen_at >= _FRESH_SECONDS:
                keys = list(self.waiting)
                self._states = await self._request("get_task_status", keys=keys)
                found = await self._request("processing")
                self._places = {each: at for at, keys in found.items() for each in keys}
                self._workers = (await self._request("identity"))["workers"]
                self._seen_at = now
        return Sight(self._states.get(key, ""), self._places.get(key, ""), self._workers)

    async def _submit(self, items: Mapping[str, Submission]) -> None:
        client = await self.client()
        found = submit_all(client, items.values())
        if found:
            # Over what is there: another worker may hold the same attempt for a moment.
            await self._call(client.publish_dataset(found, override=True))

    async def _forget(self, claims: Mapping[str, str]) -> None:
        """Remove datasets, and the claims of their attempts."""
        client = await self.client()
        await self._call(client.unpublish_dataset(list(claims)))
        client = await self.client()
        await self._call(release(client.scheduler, claims.values()))

    async def _request(self, operation: str, **arguments: Any) -> Any:
        """Send a request to the scheduler, by the client that is connected at this moment."""
        # A client that another task has closed meanwhile has no scheduler.
        client = await self.client()
        return await self._call(getattr(client.scheduler, operation)(**arguments))

    async def _call(self, call: Awaitable[T]) -> T:
        try:
            return await call
        except (OSError, TimeoutError) as error:
            raise SchedulerAway(
                f"the Dask scheduler at {self.address} does not answer: {error}"
            ) from error


def _security(settings: DaskSettings) -> Any:
    given = {
        name: str(path)
        for name, path in (
            ("tls_ca_file", settings.tls_ca_file),
            ("tls_client_cert", settings.tls_client_cert),
            ("tls_client_key", settings.tls_client_key),
        )
        if path is not None
    }
    return Security(require_encryption=True, **given) if given else None


async def _close(client: Any) -> None:
    with anyio.move_on_after(_CLOSE_SECONDS, shield=True):
        await client.close()
