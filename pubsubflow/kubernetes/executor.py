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
# A watch that lasted so long has not failed, whatever ended it.
_QUIET_SECONDS = 20.0
# The same object would be refused the next time, too.
_INVALID = (400, 422)
_REMOVED = AttemptExit(None, "its pod was removed")


class KubernetesExecutor(Executor):
    """Runs attempts in pods.

    Workers of one installation see the same pods. Nothing is polled: each attempt has a watch.
    """

    Options = Pod
    Settings = KubernetesSettings
    settings: KubernetesSettings
    _clusters: dict[str, Cluster]

    def __init__(self, settings: KubernetesSettings) -> None:
        super().__init__(settings)
        self._found: dict[AttemptLabel, Cluster] = {}

    async def open(self) -> None:
        """Connect to the cluster.

        Raises:
            ConfigError: The extra is not installed, or credentials are missing.
        """
        first = await Cluster.connect(self.settings)
        others = {name: first.beside(name) for name in self.settings.namespaces}
        self._clusters = others | {self.settings.namespace: first}

    async def close(self) -> None:
        """Give up connections; the pods go on."""
        await self._clusters[self.settings.namespace].close()

    async def start(self, attempt: Attempt) -> None:
        """Create the pod of an attempt unless there is one.

        Raises:
            CannotStart: The cluster refuses it.
        """
        name, cluster = attempt.label.name, self._chosen(attempt)
        self._found[attempt.label] = cluster
        try:
            wanted = pod_of(attempt, self.settings)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            text = f"its template is not one of a pod: {error}"
            raise CannotStart(text, again=False) from error
        try:
            # The secret first: without it a pod waits for the kubelet's next try.
            with _unless_there():
                await cluster.create("secrets", secret_of(attempt, self.settings))
            try:
                pod = await cluster.create("pods", wanted)
            except ClusterRefused as error:
                if error.status != CONFLICT:
                    raise
                await _find_again(cluster, name)
            else:
                # A pod that somebody deletes takes its secret along.
                await cluster.own(name, pod)
        except ClusterRefused as error:
            if error.status in _INVALID:
                await cluster.delete("secrets", name)
            raise CannotStart(str(error), again=error.status not in _INVALID) from error

    def _chosen(self, attempt: Attempt) -> Cluster:
        """Return the namespace that a task names.

        Raises:
            CannotStart: The settings do not have it.
        """
        name = attempt.options.namespace or self.settings.namespace
        if name not in self._clusters:
            text = f"namespace {name!r} is not in executors.kubernetes.namespaces of the worker"
            raise CannotStart(text, again=False)
        return self._clusters[name]

    async def _cluster_of(self, label: AttemptLabel) -> Cluster:
        """Return the namespace of an attempt that may have been started by another worker."""
        first = self._clusters[self.settings.namespace]
        if label not in self._found and len(self._clusters) > 1:
            for each in self._clusters.values():
                if (await each.find_pod(label.name))[0] is not None:
                    self._found[label] = each
        return self._found.get(label, first)

    async def watch(self, label: AttemptLabel, report: Callable[[str], None]) -> AttemptExit:
        """Wait until the process of an attempt has ended.

        Raises:
            CannotStart: Its image has no valid name.
        """
        look, pause = _Look(report), _FIRST_PAUSE_SECONDS
        while True:
            least, began = 0.0, anyio.current_time()
            try:
                cluster = await self._cluster_of(label)
                pod, version = await cluster.find_pod(label.name)
                if pod is None:
                    return _REMOVED
                if (found := look(pod)) is not None:
                    return found
                async with aclosing(cluster.watch_pod(label.name, version)) as changes:
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
        cluster = await self._cluster_of(label)
        await cluster.delete("pods", label.name, math.ceil(grace_seconds))

    async def find(self) -> list[AttemptLabel]:
        """Return the attempts of all pods of this installation, and of secrets left over."""
        selector = f"{INSTALLATION}={self.settings.installation}"
        found: dict[AttemptLabel, Cluster] = {}
        for cluster in self._clusters.values():
            for kind in ("pods", "secrets"):
                labels = map(label_of, await cluster.list_all(kind, selector))
                found |= dict.fromkeys(filter(None, labels), cluster)
        self._found = found
        return list(found)

    async def read_output(self, label: AttemptLabel) -> str:
        """Return the last lines of a pod's container; empty if it is gone."""
        try:
            cluster = await self._cluster_of(label)
            return await cluster.read_log(label.name, CONTAINER, _LINES)
        except ClusterRefused as error:
            if error.status == NOT_FOUND:
                return ""
            raise

    async def remove(self, label: AttemptLabel) -> None:
        """Delete what is left of an attempt."""
        cluster = await self._cluster_of(label)
        await cluster.delete("pods", label.name, 0)
        await cluster.delete("secrets", label.name)
        self._found.pop(label, None)


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


async def _find_again(cluster: Cluster, name: str) -> None:
    """Make sure that the pod of a name is that of an attempt which may run.

    Raises:
        CannotStart: It has ended, and is about to be gone.
        ClusterRefused: The server is away.
    """
    if is_removed(await cluster.get("pods", name)):
        raise CannotStart("the pod of its start before is not removed yet", again=True)


@contextmanager
def _unless_there() -> Iterator[None]:
    """Ignore that an object exists already: the attempt was started before."""
    try:
        yield
    except ClusterRefused as error:
        if error.status != CONFLICT:
            raise
