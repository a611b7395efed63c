"""Bundles made by hand: their files as managers have them, and DAG files imported in the test."""

import hashlib
import importlib
import sys
from contextlib import contextmanager
from pathlib import Path

from pubsubflow.authoring.dag_files import BundleFolder
from pubsubflow.model.source.bundles import (
    BundleFile,
    DagSource,
    Manifest,
    bundle_hash,
    isolated_folders,
    source_key,
)


class MadeBundle:
    """A bundle of texts.

    Attributes:
        contents: Hash → content.
    """

    def __init__(self, files, *, root="/dags", imported=()):
        self.contents = {}
        found = {path: self._file(text) for path, text in files.items()}
        self.manifest = Manifest(root, "", found, isolated_folders(found, imported))
        self.hash = bundle_hash("", found)

    def _file(self, text):
        data = text if isinstance(text, bytes) else text.encode()
        digest = hashlib.sha256(data).hexdigest()
        self.contents[digest] = data
        return BundleFile(digest, len(data))

    def source(self, dag, *, file, version=1):
        """Return the source of runs of a DAG's version."""
        key = source_key(self.hash, version, hashlib.sha256(dag.dag_id.encode()).hexdigest())
        return DagSource(key, self.hash, file, dag.dag_id, dag.tasks)

    def write(self, folder):
        """Write the files below a folder."""
        for path, file in self.manifest.files.items():
            target = Path(folder, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self.contents[file.hash])


@contextmanager
def entered(folder, root=None):
    """Import from a folder as a process of user code does, for the length of a block."""
    bundle = BundleFolder(str(folder), str(root or folder))
    modules, path, hooks = set(sys.modules), list(sys.path), list(sys.path_hooks)
    sys.path_hooks.insert(0, bundle.finder)
    sys.path.insert(0, str(folder))
    sys.path_importer_cache.clear()
    importlib.invalidate_caches()
    try:
        yield bundle
    finally:
        sys.path[:], sys.path_hooks[:] = path, hooks
        sys.path_importer_cache.clear()
        for name in set(sys.modules) - modules:
            if str(folder) in str(getattr(sys.modules[name], "__file__", "")):
                del sys.modules[name]


def execute(folder, files, file="flow.py", root=None):
    """Return what a DAG file defines, written with its files below a folder."""
    MadeBundle(files).write(folder)
    with entered(folder, root) as bundle:
        return bundle.execute(file)
