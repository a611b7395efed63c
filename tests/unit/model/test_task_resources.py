"""Resources as they are written, shown, and compared with what workers have."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubsubflow.model.wire.task_resources import (
    ResourcesSpec,
    WorkerResources,
    describe_resources,
    format_memory,
    lacking_room,
    parse_memory,
)

GIB = 1 << 30


@pytest.mark.parametrize(
    ("written", "read", "shown"),
    [
        ("2GiB", 2 * GIB, "2 GiB"),
        ("512MB", 512_000_000, "512 MB"),
        ("1.5 GiB", 3 * GIB // 2, "1536 MiB"),
        (GIB, GIB, "1 GiB"),
    ],
)
def test_memory_is_read_and_shown(written, read, shown):
    assert (parse_memory(written), format_memory(read)) == (read, shown)


@pytest.mark.parametrize(
    "written", ["", "2G", "GiB", "-1GiB", "1e3MB", "nanGiB", "0GiB", 0, True, 1.5]
)
def test_memory_that_says_too_little_is_refused(written):
    with pytest.raises((TypeError, ValueError)):
        parse_memory(written)


@given(st.integers(1, 1023), st.sampled_from(["MiB", "GiB", "MB", "GB"]))
def test_what_is_shown_reads_as_what_was_written(number, unit):
    size = parse_memory(f"{number}{unit}")
    assert parse_memory(format_memory(size)) == size


def test_a_measured_size_is_shown_with_one_decimal():
    assert format_memory(1_503_238_553) == "1.4 GiB"
    assert format_memory(205_272 << 10) == "200.5 MiB"
    assert describe_resources(2 * GIB, 1.5) == "2 GiB, 1.5 cpu"


def test_a_task_says_what_it_waits_for_and_at_which_worker():
    small = WorkerResources("w1", 4 * GIB, 2.0, GIB, 0.5)
    large = WorkerResources("w2", 16 * GIB, 8.0, 0, 0.0)
    wanted = ResourcesSpec(memory=2 * GIB, cpu=1.5)
    assert lacking_room(wanted, [small]) == ("2 GiB; 1 GiB free and 1.5 cpu; 0.5 free on worker w1")
    # One that could never run it is not worth waiting for.
    assert lacking_room(ResourcesSpec(memory=8 * GIB), [small, large]) == (
        "8 GiB; 0 free on worker w2"
    )
    assert lacking_room(ResourcesSpec(cpu=9), [small, large]) == (
        "a worker that has room for it: 9 cpu; 2 in all on worker w1; raise memory or cpu of its "
        "[worker], or lower the task's resources"
    )
    assert lacking_room(wanted, [small, WorkerResources("w3")]) is None
    assert lacking_room(wanted, []) is None
