"""Progress of large runs: chunks that change are written, and what is kept is nobody else's."""

from itertools import count

import pytest

from pubsubflow.errors import NewerFormat
from pubsubflow.manager.persistence.large_progress import (
    encode_progress,
    keep_unchanged,
    take_kept,
)
from pubsubflow.model.runs.node_progress import NodeProgress
from pubsubflow.model.runs.progress import STORED_PROGRESS, Progress
from pubsubflow.model.runs.states import TaskState
from pubsubflow.model.runs.stored.split_progress import (
    CHUNK_NODES,
    ChunkedNodes,
    decode_stored,
    is_split,
    join,
    split,
)

NODES = 500
_numbers = count()


def new_id():
    return next(_numbers).to_bytes(16)


def progress(nodes=NODES):
    made = [NodeProgress(total=1, left_out_by=(node,)) for node in range(nodes)]
    return Progress(made, nodes, 1, "cancelled", "by hand")


def store(held, chunks):
    """Store chunks as the table does; return all of them, in order."""
    held.update(chunks)
    return [held[number] for number in sorted(held)]


@pytest.mark.parametrize("nodes", [1, 15, 16, 128, 129, 144, 500, 10_000])
def test_what_is_joined_is_what_was_split(nodes):
    head, chunks = split(progress(nodes), new_id)
    assert is_split(head)
    assert len(head) < 60
    assert [number for number, _ in chunks] == list(range(-(-nodes // CHUNK_NODES)))
    joined = join(head, store({}, chunks))
    assert joined == progress(nodes)
    assert split(joined, new_id)[1] == []


def test_a_result_writes_only_the_chunks_that_it_changes():
    held = {}
    head, chunks = split(progress(), new_id)
    read = join(head, store(held, chunks))
    read.nodes[130].count(TaskState.SUCCESS)
    assert not read.nodes[450].complete
    read.nodes[499] = NodeProgress()
    head, chunks = split(read, new_id)
    assert [number for number, _ in chunks] == [1, 3]
    assert join(head, store(held, chunks)) == read


@pytest.mark.parametrize(
    "look",
    [
        list,
        lambda nodes: list(enumerate(nodes)),
        lambda nodes: list(reversed(nodes)),
        lambda nodes: nodes[:],
        lambda nodes: [nodes[-1], nodes[0], nodes[200], nodes[300]],
        lambda nodes: [each for each, _ in zip(nodes, nodes, strict=True)],
    ],
)
def test_a_change_is_found_however_the_node_was_come_by(look):
    head, chunks = split(progress(), new_id)
    read = join(head, store({}, chunks))
    for entry in look(read.nodes):
        node = entry[1] if isinstance(entry, tuple) else entry
        node.count(TaskState.FAILED)
    assert {number for number, _ in split(read, new_id)[1]} == {0, 1, 2, 3}


def test_each_head_is_another_one():
    same = progress()
    heads = {encode_progress(same)[0] for _ in range(3)}
    assert len(heads) == 3


def test_small_progress_is_whole():
    small = progress(399)
    assert encode_progress(small) == (STORED_PROGRESS.encode(small), [])
    assert decode_stored(STORED_PROGRESS.encode(small), None) == small


def test_what_is_kept_goes_to_one_reader_and_only_for_what_it_wrote():
    written = progress()
    head, _ = encode_progress(written)
    assert take_kept(encode_progress(progress())[0]) is not written
    assert take_kept(head) is written
    assert take_kept(head) is None


def test_what_was_taken_and_has_not_changed_is_kept_again():
    head, _ = encode_progress(progress())
    taken = take_kept(head)
    assert not taken.nodes[3].complete
    keep_unchanged(taken)
    assert take_kept(head) is taken
    taken.nodes[3].count(TaskState.SUCCESS)
    keep_unchanged(taken)
    assert take_kept(head) is None


def test_a_daemon_that_knows_the_whole_form_alone_leaves_it_to_others():
    head, _ = split(progress(), new_id)
    with pytest.raises(NewerFormat):
        STORED_PROGRESS.decode(head)


def test_fields_of_a_newer_version_are_kept():
    """They have no place in chunks of this version: such progress is written whole."""
    head, chunks = split(progress(), new_id)
    newer = bytes([head[0] + 1]) + head[1:] + b"\xa3new"
    read = join(newer, store({}, chunks))
    assert not isinstance(read.nodes, ChunkedNodes)
    whole, none = encode_progress(read)
    assert none == []
    before = STORED_PROGRESS.encode(progress())
    assert whole == bytes([before[0] + 1]) + before[1:] + b"\xa3new"
    assert decode_stored(whole, store({}, chunks)) == read
