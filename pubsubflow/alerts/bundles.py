"""Bundles of callbacks: the files of a DAGs folder, put on disk from the store."""

import anyio
import msgspec
from anyio import to_thread

from pubsubflow.model.source.bundles import DagSource, Manifest
from pubsubflow.runner.caches.bundle_cache import BundleCache
from pubsubflow.store.read.worker_requests import WorkerRequestQueries

_PART_BYTES = 4 << 20
_manifests = msgspec.msgpack.Decoder(Manifest)


class CallbackBundles:
    """Opens the bundles that callbacks are in; those that no call uses are given up.

    Args:
        queries: Reads bundles and their files.
        cache: Keeps them on disk.
    """

    def __init__(self, queries: WorkerRequestQueries, cache: BundleCache) -> None:
        self._queries = queries
        self._cache = cache
        self._lock = anyio.Lock()

    async def source(self, key: str) -> DagSource:
        """Return the source of a run.

        Raises:
            LookupError: It is gone.
        """
        found = await self._queries.source(key)
        if found is None:
            raise LookupError("the code of the run is gone")
        return found

    async def open(self, bundle: str) -> tuple[str, Manifest]:
        """Return the folder of a bundle, and its manifest.

        Raises:
            LookupError: It is gone.
            OSError: It cannot be put on disk.
        """
        async with self._lock:
            encoded = await self._queries.bundle(bundle)
            if encoded is None:
                raise LookupError(f"the bundle {bundle} is gone")
            manifest = _manifests.decode(encoded)
            with self._cache.filling():
                missing = await to_thread.run_sync(self._cache.missing, manifest)
                for file in manifest.files.values():
                    if file.hash in missing:
                        data = await self._read(file.hash)
                        self._cache.add(data, executable=file.executable)
                        missing.pop(file.hash)
                folder = await to_thread.run_sync(self._cache.open, bundle, manifest)
            return str(folder), manifest

    async def _read(self, file: str) -> bytes:
        data = bytearray()
        while True:
            found = await self._queries.file(file, len(data), _PART_BYTES)
            if found is None:
                raise LookupError(f"the file {file} of the bundle is gone")
            part, total = found
            data += part
            if len(data) >= total or not part:
                return bytes(data)

    def close(self) -> None:
        """Release all bundles."""
        self._cache.close()
