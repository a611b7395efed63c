import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubsubflow.runner.frames import (
    FrameDecoder,
    FrameTooLarge,
    pack,
    receive_frame,
    send_frame,
)


@given(st.lists(st.binary(max_size=200)), st.lists(st.integers(1, 50), min_size=1))
def test_frames_come_out_whole_however_the_stream_is_cut(frames, cuts):
    stream = b"".join(map(pack, frames))
    decoder, found, position, turn = FrameDecoder(), [], 0, 0
    while position < len(stream):
        size = cuts[turn % len(cuts)]
        found += decoder.feed(stream[position : position + size])
        position, turn = position + size, turn + 1
    assert found == frames


def test_blocking_sides_speak_the_same():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        send_frame(ours, b"")
        send_frame(ours, b"abc")
        assert receive_frame(theirs) == b""
        assert receive_frame(theirs) == b"abc"
        ours.close()
        with pytest.raises(EOFError):
            receive_frame(theirs)


def test_what_is_no_frame_is_refused():
    with pytest.raises(FrameTooLarge):
        FrameDecoder().feed(b"\xff" * 8)
