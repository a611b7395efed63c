"""The executor `kubernetes`: a pod for each attempt, and a secret with what its process gets."""

import math
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager

import anyio

from pubsubflow.executors import Attempt, AttemptExit, AttemptLabel, CannotStart, Executor
from pubsubflow.kubernetes.cluster import (
    CONFLICT,
    NOT_FOUND,
    Cluster,
    ClusterRefused,
)
from pubsubflow.kubernetes.options import KubernetesSettings, Pod
from pubsubflow.kubernetes.pods import (
    CONTAINER,
    INSTALLATION,
    Manifest,
    exit_of,
    is_removed,
    label_of,
    pod_of,
    secret_of,
    waits_for,
)

_LINES = 50
_FIRST_PAUSE_SECONDS = 0.2
_MOST_PAUSE_SECONDS = 4.0
_QUIET_SECONDS = 20.0
_INVALID = (400, 422)
_REMOVED = AttemptExit(None, "its pod was removed")


class KubernetesExecutor(Executor):
    """Runs attempts in pods.

    Workers of one installation see the same pods. Nothing is polled: each attempt has a watch.
    """

    Options = Pod
    Settings = KubernetesSettings
    settings: KubernetesSettings
    _cluster: Cluster

    async def open(self) -> None:
        """Connect to the cluster.

        Raises:
            ConfigError: The extra is not installed, or credentials are missing.
        """
        self._cluster = await Cluster.connect(self.settings)

    async def close(self) -> None:
        """Give up connections; the pods go on."""
        await self._cluster.close()

    async def start(self, attempt: Attempt) -> None:
        """Create the pod of an attempt unless there is one.

        Raises:
            CannotStart: The cluster refuses it.
        """
        name = attempt.label.name
        try:
            wanted = pod_of(attempt, self.settings)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            text = f"its template is not one of a pod: {error}"
            raise CannotStart(text, again=False) from error
        try:
            # The secret first: without it a pod waits for the kubelet's next try.
            with _unless_there():
                await self._cluster.create("secrets", secret_of(attempt, self.settings))
            try:
                pod = await self._cluster.create("pods", wanted)
            except ClusterRefused as error:
                if error.status != CONFLICT:
                    raise
                await self._find_again(name)
            else:
                # A pod that somebody deletes takes its secret along.
                await self._cluster.own(name, pod)
        except ClusterRefused as error:
            if error.status in _INVALID:
                await self._cluster.delete("secrets", name)
            raise CannotStart(str(error), again=error.status not in _INVALID) from error

    async def _find_again(self, name: str) -> None:
        """Make sure that the pod of a name is that of an attempt which may run.

        Raises:
            CannotStart: It has ended, and is about to be gone.
            ClusterRefused: The server is away.
        """
        if is_removed(await self._cluster.get("pods", name)):
            raise CannotStart("the pod of its start before is not removed yet", again=True)

    async def watch(self, label: AttemptLabel, report: Callable[[str], None]) -> AttemptExit:
        """Wait until the process of an attempt has ended.

        Raises:
            CannotStart: Its image has no valid name.
        """
        look, pause = _Look(report), _FIRST_PAUSE_SECONDS
        while True:
            least, began = 0.0, anyio.current_time()
            try:
                pod, version = await self._cluster.find_pod(label.name)
                if pod is None:
                    return _REMOVED
                if (found := look(pod)) is not None:
                    return found
                async with aclosing(self._cluster.watch_pod(label.name, version)) as changes:
                    async for kind, each in changes:
                        if (found := look(each, gone=kind == "DELETED")) is not None:
                            return found
            except ClusterRefused as error:
                # Too old a version, or a server that is away: the pod goes on, and so does this.
                least = error.pause
            if anyio.current_time() - began > _QUIET_SECONDS:
                pause = _FIRST_PAUSE_SECONDS
            await anyio.sleep(max(pause, least))
            pause = min(2 * pause, _MOST_PAUSE_SECONDS)

    async def stop(self, label: AttemptLabel, grace_seconds: float) -> None:
        """Delete the pod of an attempt, with a grace."""
        await self._cluster.delete("pods", label.name, math.ceil(grace_seconds))

    async def find(self) -> list[AttemptLabel]:
        """Return the attempts of all pods of this installation, and of secrets left over."""
        selector = f"{INSTALLATION}={self.settings.installation}"
        kinds = ("pods", "secrets")
        items = [each for kind in kinds for each in await self._cluster.list_all(kind, selector)]
        return list(dict.fromkeys(filter(None, map(label_of, items))))

    async def read_output(self, label: AttemptLabel) -> str:
        """Return the last lines of a pod's container; empty if it is gone."""
        try:
            return await self._cluster.read_log(label.name, CONTAINER, _LINES)
        except ClusterRefused as error:
            if error.status == NOT_FOUND:
                return ""
            raise

    async def remove(self, label: AttemptLabel) -> None:
        """Delete what is left of an attempt."""
        await self._cluster.delete("pods", label.name, 0)
        await self._cluster.delete("secrets", label.name)


class _Look:
    """Sees how a pod has ended, and says once what it waits for."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._said = ""

    def __call__(self, pod: Manifest, *, gone: bool = False) -> AttemptExit | None:
        found = exit_of(pod, gone=gone)
        if found is None:
            text, never = waits_for(pod)
            if never:
                raise CannotStart(text, again=False)
            if text != self._said:
                self._report(text or "its pod has what it waited for")
            self._said = text
        return found


@contextmanager
def _unless_there() -> Iterator[None]:
    """Ignore that an object exists already: the attempt was started before."""
    try:
        yield
    except ClusterRefused as error:
        if error.status != CONFLICT:
            raise
