"""The test server of Kubernetes in a thread, for what blocks its own event loop."""

import asyncio
import threading
from contextlib import contextmanager

from support.kubernetes_api import KubernetesApi


class KubernetesThread:
    """Its cluster, and a way to call what belongs to its loop."""

    def __init__(self):
        self.api = None
        self._loop = asyncio.new_event_loop()

    @classmethod
    @contextmanager
    def running(cls, folder):
        server, ready, over = cls(), threading.Event(), asyncio.Event()

        async def serve():
            async with KubernetesApi.start(folder) as server.api:
                ready.set()
                await over.wait()

        thread = threading.Thread(target=server._loop.run_until_complete, args=[serve()])
        thread.start()
        ready.wait()
        try:
            yield server
        finally:
            server._loop.call_soon_threadsafe(over.set)
            thread.join()
            server._loop.close()

    def call(self, function, *arguments):
        """Call a function on the server's loop, and return what it returns."""

        async def called():
            return function(*arguments)

        return asyncio.run_coroutine_threadsafe(called(), self._loop).result(60)

    @property
    def environ(self):
        """What a daemon needs to offer the executor."""
        found = {"KUBECONFIG": str(self.api.kubeconfig), "NAMESPACE": "jobs", "IMAGE": "psf:1"}
        return {f"PUBSUBFLOW__EXECUTORS__KUBERNETES__{key}": text for key, text in found.items()}
