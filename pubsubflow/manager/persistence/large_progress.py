"""Progress of large runs is kept decoded between two results: a DAG may have thousands of tasks.

It is kept under its head, which is new each time it is written, and is taken only where that very
head is read from the store: it does not matter which manager wrote last, or whether a transaction
was rolled back. See docs/adr/0060-progress-in-chunks.md.
"""

from os import urandom

from pubsubflow.model.recent import Recent
from pubsubflow.model.runs.progress import STORED_PROGRESS, Progress
from pubsubflow.model.runs.stored.split_progress import MANY_NODES, ChunkedNodes, Chunks, split

_KEPT = 16
_ID_BYTES = 16

_kept: Recent[bytes, Progress] = Recent(_KEPT)


def take_kept(head: bytes) -> Progress | None:
    """Return the progress that is stored with a head, if it is kept; it is the caller's alone."""
    return _kept.pop(head)


def encode_progress(progress: Progress) -> tuple[bytes, Chunks]:
    """Return progress as it is stored, and its chunks that have changed.

    It is kept for the next result, and must not be changed any more.
    """
    if progress.newer is not None:
        return STORED_PROGRESS.encode(progress), []
    if len(progress.nodes) < MANY_NODES:
        return STORED_PROGRESS.encode_known(progress), []
    head, chunks = split(progress, lambda: urandom(_ID_BYTES))
    _kept.put(head, progress)
    return head, chunks


def keep_unchanged(progress: Progress) -> None:
    """Keep progress that was taken, and turned out not to change."""
    nodes = progress.nodes
    if isinstance(nodes, ChunkedNodes) and not nodes.take_changed():
        _kept.put(nodes.head, progress)
