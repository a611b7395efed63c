"""Throughput of a manager, and what a batch takes."""

from collections import deque

from pubsubflow.manager.inbox import InboxItem, Throughput, fill_batch
from pubsubflow.manager.settings import ManagerSettings
from pubsubflow.model.wire.commands import RecordEvents
from pubsubflow.model.wire.messages import NewEvent

SETTINGS = ManagerSettings(batch=5, batch_events=10)


def post(size):
    events = (NewEvent("s3://a"),) * size
    return InboxItem(RecordEvents(events, (None,) * size), done=print, failed=print)


def sizes(*numbers):
    waiting, batch = deque(post(number) for number in numbers), []
    fill_batch(batch, waiting, SETTINGS)
    return [item.weight for item in batch], [item.weight for item in waiting]


def test_a_batch_is_full_by_items_or_by_events():
    assert sizes(1, 1, 1, 1, 1, 1) == ([1, 1, 1, 1, 1], [1])
    assert sizes(4, 6, 1) == ([4, 6], [1])
    assert sizes(4, 7, 1) == ([4], [7, 1])


def test_a_request_larger_than_a_batch_is_a_batch_of_its_own():
    assert sizes(50, 1) == ([50], [1])


def test_a_backlog_is_counted_in_events_with_its_age_and_the_throughput():
    throughput = Throughput()
    assert throughput.backlog([], away=False).pending == 0
    throughput.finish([post(50)], seconds=0.5)
    throughput.batch.append(post(3))
    found = throughput.backlog([post(4)], away=False)
    assert found.pending == 7
    assert found.oldest_seconds < 60
    assert found.rate == 100
    assert found.seconds == 0.07
