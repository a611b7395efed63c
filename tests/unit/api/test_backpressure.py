"""Whether events are taken in: decided from what was found, without flapping."""

import pytest

from pubsubflow.api import ApiSettings
from pubsubflow.api.server.backpressure import (
    MAX_RETRY_SECONDS,
    UNKNOWN_RETRY_SECONDS,
    IngestRefusal,
    LoadSample,
    decide_refusal,
)
from pubsubflow.model.wire.backlog import QueueBacklog

LIMITS = ApiSettings(
    max_pending_events=1000, max_lag_seconds=10, min_free_bytes=1000, min_free_percent=10
)
BEHIND = IngestRefusal("behind", 1)
SHORT = IngestRefusal("short", 1, disk=True)


def behind(pending=0, seconds=0.0, rate=100.0, **more):
    return LoadSample(
        commands=QueueBacklog(pending=pending, oldest_seconds=seconds, rate=rate, **more)
    )


def test_events_are_taken_in_until_a_limit_is_reached():
    assert decide_refusal(behind(999, 9.9), LIMITS, None) is None
    assert "1000 events wait" in decide_refusal(behind(1000), LIMITS, None).reason
    assert "for 10.0 s" in decide_refusal(behind(1, 10.0), LIMITS, None).reason


def test_what_waits_here_and_on_the_bus_counts_together():
    sample = LoadSample(commands=QueueBacklog(pending=600), queued=QueueBacklog(pending=600))
    assert decide_refusal(sample, LIMITS, None)


def test_events_are_taken_in_again_when_half_of_it_is_gone():
    assert decide_refusal(behind(500), LIMITS, BEHIND)
    assert decide_refusal(behind(499), LIMITS, BEHIND) is None
    assert decide_refusal(behind(1, 5.0), LIMITS, BEHIND)
    assert decide_refusal(behind(1, 4.9), LIMITS, BEHIND) is None


@pytest.mark.parametrize(
    ("sample", "seconds"),
    [
        (behind(2000, rate=100), 15),
        (behind(2000, rate=1e6), 1),
        (behind(2000, rate=0), UNKNOWN_RETRY_SECONDS),
        (behind(10**6, rate=1), MAX_RETRY_SECONDS),
        (behind(1, 12.0), 7),
        (
            LoadSample(commands=behind(1000).commands, queued=QueueBacklog(pending=1000, rate=50)),
            15,
        ),
    ],
)
def test_the_time_to_come_again_follows_from_what_waits_and_how_fast_it_goes(sample, seconds):
    assert decide_refusal(sample, LIMITS, None).retry_seconds == seconds


def test_while_postgres_is_away_each_request_says_so_itself():
    assert decide_refusal(behind(2000, away=True), LIMITS, BEHIND) is None


def test_a_short_disk_refuses_events_until_there_is_clearly_room():
    def disk(free, total=5000):
        return LoadSample(free_bytes=free, total_bytes=total)

    assert decide_refusal(disk(1000), LIMITS, None) is None
    assert "disk is nearly full" in decide_refusal(disk(999), LIMITS, None).reason
    assert decide_refusal(disk(1099), LIMITS, SHORT).disk
    assert decide_refusal(disk(1100), LIMITS, SHORT) is None
    assert decide_refusal(disk(1999, 20_000), LIMITS, None).disk
    assert decide_refusal(behind(999), LIMITS, SHORT) is None
