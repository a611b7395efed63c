"""Large progress is kept decoded between two results of its run: a DAG may have thousands of tasks.

It is kept under its encoded form, and is taken only where exactly that is read from the store. So
it does not matter which manager wrote last, or whether a transaction was rolled back.
"""

from pubsubflow.model.recent import Recent
from pubsubflow.model.runs.progress import STORED_PROGRESS, Progress

LARGE_BYTES = 4096
MANY_NODES = 400
_KEPT = 16

_kept: Recent[bytes, Progress] = Recent(_KEPT)


def decode_large(data: bytes) -> Progress:
    """Return the progress that some bytes hold; it is the caller's alone.

    Raises:
        NewerFormat: It has a form of a newer version.
    """
    return _kept.pop(data) or STORED_PROGRESS.decode(data)


def encode_large(progress: Progress) -> bytes:
    """Encode progress that is not changed any more, and keep it for the next result."""
    data = STORED_PROGRESS.encode(progress)
    if progress.newer is None:
        _kept.put(data, progress)
    return data
