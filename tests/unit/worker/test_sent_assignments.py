"""What a process was sent: which has begun in it, and what is revoked."""

from types import SimpleNamespace

import pytest

from pubsubflow.runner.flight_recorder import BEGUN, RunnerRecorder, begins
from pubsubflow.worker.processes.sent import SentAssignments

pytestmark = pytest.mark.anyio


@pytest.fixture
def recorder():
    recorder = RunnerRecorder()
    yield recorder
    recorder.close()


@pytest.fixture
async def sent(recorder):
    sent = SentAssignments(one_at_a_time=True)
    sent.page = recorder.page
    return sent


def send(sent, count):
    found = [SimpleNamespace(position=0) for _ in range(count)]
    for each in found:
        sent.add(each)
    return found


async def test_what_has_not_begun_is_revoked_and_begins_no_more(sent):
    first, second, third = send(sent, 3)
    assert begins(sent.page, first.position)
    assert sent.has_begun(first)
    assert sent.revoke() == [second, third]
    assert not begins(sent.page, second.position)


async def test_what_is_sent_after_a_revocation_begins(sent):
    first, second = send(sent, 2)
    assert begins(sent.page, first.position)
    assert sent.revoke() == [second]
    sent.remove(second)
    # The same assignment again: its number is another one.
    sent.add(second)
    assert begins(sent.page, second.position)
    assert sent.has_ended(first)
    assert not sent.has_ended(second)


async def test_the_process_may_begin_one_while_the_others_are_revoked(sent):
    first, second, third = send(sent, 3)
    assert begins(sent.page, first.position)
    page, numbers = sent.page, []

    class Racing:
        """The process begins the second one as the worker writes what is revoked."""

        def __getitem__(self, index):
            return page[index]

        def __setitem__(self, index, value):
            page[index] = value
            numbers.append(index)
            page[BEGUN] = second.position

    sent.page = Racing()
    assert sent.revoke() == [third]
    assert len(numbers) == 2


async def test_one_at_a_time_runs_and_the_next_one_comes_to_the_front(sent):
    first, second = send(sent, 2)
    assert list(sent.running) == [first]
    assert sent.front is first
    assert not sent.remove(second)
    assert sent.remove(first)
    assert (sent.front, sent.front_seconds, len(sent)) == (None, 0.0, 0)
    assert sent.count == 2


async def test_beside_one_another_all_run():
    sent = SentAssignments(one_at_a_time=False)
    found = send(sent, 3)
    assert list(sent.running) == found


async def test_without_a_page_nothing_is_revoked():
    sent = SentAssignments(one_at_a_time=True)
    first, _ = send(sent, 2)
    assert sent.revoke() == sent.unbegun() == []
    assert sent.has_begun(first)
    assert not sent.has_ended(first)
