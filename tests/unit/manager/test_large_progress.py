"""Progress that is kept decoded is what the store holds, and never anyone else's."""

from pubsubflow.manager.persistence.large_progress import decode_large, encode_large
from pubsubflow.model.runs.node_progress import NodeProgress
from pubsubflow.model.runs.progress import STORED_PROGRESS, Progress


def progress(success=0):
    return Progress([NodeProgress(total=1, success=success) for _ in range(500)], 500)


def test_what_is_kept_goes_to_one_reader_and_only_for_what_it_wrote():
    written = progress()
    data = encode_large(written)
    assert data == STORED_PROGRESS.encode(progress())
    assert decode_large(STORED_PROGRESS.encode(progress(success=1))) == progress(success=1)
    first, second = decode_large(data), decode_large(data)
    assert first is written
    assert second == first
    assert second is not first


def test_what_is_changed_after_a_rollback_is_read_anew():
    """A batch that failed has changed what it had taken: the store still holds what was before."""
    stored = encode_large(progress())
    taken = decode_large(stored)
    taken.nodes[0].count(taken.nodes[0].state)
    encode_large(taken)
    assert decode_large(stored) == progress()


def test_fields_of_a_newer_version_are_kept():
    data = STORED_PROGRESS.encode(progress())
    newer = bytes([data[0] + 1]) + data[1:] + b"\xa3new"
    assert encode_large(decode_large(newer)) == newer
