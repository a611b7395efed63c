"""Progress of a large run is stored in chunks of nodes: a result writes only those that it changes.

Its head is the encoded progress with a stamp in place of the nodes: an id that is new each time the
progress is written, and the number of nodes. The nodes follow in chunks. A daemon that knows the
whole form alone finds no list where the stamp is, and leaves the run to others.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import SupportsIndex, overload

import msgspec

from pubsubflow.model.runs.node_progress import NodeProgress
from pubsubflow.model.runs.progress import STORED_PROGRESS, Progress

MANY_NODES = 400
"""From how many nodes on the progress of a run is stored in chunks."""
CHUNK_NODES = 128
"""Nodes of a chunk, about 1.2 kB: a row that stays in its table. It is part of the form."""

_pack = msgspec.msgpack.Encoder().encode
_ID_BYTES = 16
_COUNT_BYTES = 4
# As MessagePack: an array of fewer than 16 fields, whose first is bytes, an array of any length.
_BYTES = b"\xc4" + bytes([_ID_BYTES + _COUNT_BYTES])
_ARRAY = b"\xdd"
_STAMP = slice(1 + len(_BYTES), 1 + len(_BYTES) + _ID_BYTES)
_COUNT = slice(_STAMP.stop, _STAMP.stop + _COUNT_BYTES)
_SHORT_ARRAY = 15
_LONG_ARRAY_BYTES = 3

Chunks = list[tuple[int, bytes]]
"""Encoded chunks with their numbers."""


class ChunkedNodes(list[NodeProgress]):
    """The nodes of a large run; knows which chunks may have changed since they were stored.

    A node that was looked at may have been changed: its chunk is compared when it is stored.

    Args:
        nodes: The nodes.
        head: See below.
        stored: The chunks that are stored; none are unless given.

    Attributes:
        head: The head that they are stored with.
    """

    def __init__(
        self, nodes: Sequence[NodeProgress], head: bytes = b"", stored: Sequence[bytes] = ()
    ) -> None:
        super().__init__(nodes)
        self.head = head
        self._stored = list(stored) or [b""] * (-(-len(nodes) // CHUNK_NODES))
        self._seen = set() if stored else set(range(len(self._stored)))

    @overload
    def __getitem__(self, index: SupportsIndex) -> NodeProgress: ...

    @overload
    def __getitem__(self, index: slice) -> list[NodeProgress]: ...

    def __getitem__(self, index: SupportsIndex | slice) -> NodeProgress | list[NodeProgress]:
        """Return a node, or several."""
        self._see(index)
        return super().__getitem__(index)

    def __setitem__(self, index: SupportsIndex, node: NodeProgress) -> None:  # type: ignore[override] # slices are not set
        """Replace a node."""
        self._see(index)
        super().__setitem__(index, node)

    def __iter__(self) -> Iterator[NodeProgress]:
        """Iterate over all nodes."""
        self._see(slice(None))
        return super().__iter__()

    def __reversed__(self) -> Iterator[NodeProgress]:
        """Iterate over all nodes from the last on."""
        self._see(slice(None))
        return super().__reversed__()

    def _see(self, index: SupportsIndex | slice) -> None:
        number = -1 if isinstance(index, slice) else index.__index__()
        if number < 0:
            self._seen.update(range(len(self._stored)))
        else:
            self._seen.add(number // CHUNK_NODES)

    def take_changed(self) -> Chunks:
        """Return the chunks that differ from what is stored; they count as stored then."""
        found = []
        for number in sorted(self._seen):
            first = number * CHUNK_NODES
            nodes = super().__getitem__(slice(first, first + CHUNK_NODES))
            data = _pack(nodes)[_LONG_ARRAY_BYTES if len(nodes) > _SHORT_ARRAY else 1 :]
            if data != self._stored[number]:
                self._stored[number] = data
                found.append((number, data))
        self._seen.clear()
        return found


def is_split(data: bytes) -> bool:
    """Whether stored progress is the head of one that is stored in chunks."""
    return data[1 : 1 + len(_BYTES)] == _BYTES


def split(progress: Progress, new_id: Callable[[], bytes]) -> tuple[bytes, Chunks]:
    """Return the head of progress and the chunks that have changed; they count as stored then.

    Args:
        progress: Of this version: fields of a newer one have no place in chunks.
        new_id: Returns 16 bytes that it never returned before.
    """
    nodes = progress.nodes
    if not isinstance(nodes, ChunkedNodes):
        nodes = progress.nodes = ChunkedNodes(nodes)
    rest = _pack(msgspec.structs.astuple(progress)[1:])
    # The first byte is the number of fields.
    stamp = _BYTES + new_id() + len(nodes).to_bytes(_COUNT_BYTES)
    nodes.head = bytes([rest[0] + 1]) + stamp + rest[1:]
    return nodes.head, nodes.take_changed()


def join(head: bytes, chunks: Sequence[bytes]) -> Progress:
    """Return progress from its head and all of its chunks, in order.

    Fields of a newer version are kept, as `StoredCodec` does.

    Raises:
        NewerFormat: It has a form of a newer version.
    """
    whole = b"".join((head[:1], _ARRAY, head[_COUNT], *chunks, head[_COUNT.stop :]))
    progress = STORED_PROGRESS.decode(whole)
    if progress.newer is None:
        progress.nodes = ChunkedNodes(progress.nodes, head, chunks)
    return progress


def decode_stored(data: bytes, chunks: Sequence[bytes] | None) -> Progress:
    """Return stored progress, whole or with its chunks.

    Raises:
        NewerFormat: It has a form of a newer version.
    """
    return join(data, chunks or ()) if is_split(data) else STORED_PROGRESS.decode(data)
