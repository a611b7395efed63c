"""How far behind a manager is, and what a batch takes."""

from collections import deque

from pubsubflow.manager.inbox import Item
from pubsubflow.manager.settings import ManagerSettings
from pubsubflow.manager.throughput import Pace, fill
from pubsubflow.model.wire.commands import PostEvents
from pubsubflow.model.wire.messages import NewEvent

SETTINGS = ManagerSettings(batch=5, batch_events=10)


def post(size):
    events = (NewEvent("s3://a"),) * size
    return Item(PostEvents(events, (None,) * size), done=print, failed=print)


def sizes(*numbers):
    waiting, batch = deque(post(number) for number in numbers), []
    fill(batch, waiting, SETTINGS)
    return [item.weight for item in batch], [item.weight for item in waiting]


def test_a_batch_is_full_by_items_or_by_events():
    assert sizes(1, 1, 1, 1, 1, 1) == ([1, 1, 1, 1, 1], [1])
    assert sizes(4, 6, 1) == ([4, 6], [1])
    assert sizes(4, 7, 1) == ([4], [7, 1])


def test_a_post_larger_than_a_batch_goes_alone():
    assert sizes(50, 1) == ([50], [1])


def test_what_waits_is_counted_in_events_with_its_age_and_the_pace():
    pace = Pace()
    assert pace.backlog([], away=False).pending == 0
    pace.begin()
    pace.folded([post(50)])
    pace.batch.append(post(3))
    found = pace.backlog([post(4)], away=False)
    assert found.pending == 7
    assert found.oldest_seconds < 60
    assert found.rate > 0
    assert found.seconds == 7 / found.rate
