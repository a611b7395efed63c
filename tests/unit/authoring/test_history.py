import pytest

from pubsubflow.authoring.runtime.history import JournalHistory
from pubsubflow.errors import ReplayMismatch
from pubsubflow.model.runs.waits import drop_failures
from pubsubflow.model.wire.messages import JournalEntry, TaskError
from pubsubflow.model.wire.waits import START

ERROR = TaskError("OSError", "no")


def step(key, label="load", kind="step", error=None):
    return JournalEntry(key, label, kind, b"", error)


def test_what_is_recorded_under_a_position_is_answered():
    record = JournalHistory((step("0"), step("1", "orders", "wait")))
    assert record.find(record.next_key(), "step", "load") == step("0")
    assert record.find(record.next_key(), "wait", "orders").kind == "wait"
    assert record.find(record.next_key(), "step", "more") is None
    record.check("its end")


@pytest.mark.parametrize(("kind", "label"), [("step", "store"), ("wait", "load")])
def test_another_path_is_refused(kind, label):
    record = JournalHistory((step("0"),))
    with pytest.raises(ReplayMismatch, match="step 'load' here before, and now") as caught:
        record.find(record.next_key(), kind, label)
    assert repr(label) in str(caught.value)


def test_what_nobody_came_to_is_named():
    record = JournalHistory([step(str(number), f"s{number}") for number in range(8)])
    record.find(record.next_key(), "step", "s0")
    with pytest.raises(ReplayMismatch, match=r"step 's1'.*step 's5' and 2 more.*reached its end"):
        record.check("its end")


def test_what_came_before_the_start_is_not_missing_at_the_end():
    record = JournalHistory((step(START, "orders", "wait"),))
    assert (record.start.label, record.unvisited) == ("orders", 0)
    record.check("its end")
    assert JournalHistory().start is None


def test_steps_side_by_side_are_told_apart_by_label_arguments_and_occurrence():
    record = JournalHistory()
    keys = [
        record.next_concurrent_key(label, args, kwargs)
        for label, args, kwargs in [
            ("load", (), {}),
            ("load", (), {}),
            ("load", (1,), {}),
            ("load", (2,), {}),
            ("load", (2,), {}),
            ("load", (), {"x": 2}),
            ("store", (), {}),
        ]
    ]
    assert len(set(keys)) == 7
    assert [keys[0], keys[1], keys[6]] == ["~load~0", "~load~1", "~store~0"]
    assert keys[4] == keys[3][:-1] + "1"
    assert record.next_concurrent_key("load", (1,), {}) == keys[2][:-1] + "1"


def test_arguments_that_cannot_be_carried_do_not_count():
    record = JournalHistory()
    first = record.next_concurrent_key("load", (object(), 1), {})
    second = record.next_concurrent_key("load", (object(), 1), {})
    assert (first[:-1], first[-1], second[-1]) == (second[:-1], "0", "1")


def test_steps_side_by_side_take_no_position():
    record = JournalHistory()
    assert [record.next_key(), record.next_concurrent_key("a", (), {}), record.next_key()][::2] == [
        "0",
        "1",
    ]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], []),
        ([step("0")], ["0"]),
        ([step("0"), step("1", error=ERROR)], ["0"]),
        ([step("0", error=ERROR), step("1")], ["0", "1"]),
        ([step("0"), step("~a~0", error=ERROR), step("~b~0")], ["0", "~b~0"]),
        ([step("0", error=ERROR), step("~a~0", error=ERROR), step("~b~0")], ["0", "~b~0"]),
        ([step("~a~0", error=ERROR), step("0"), step("~b~0")], ["~a~0", "0", "~b~0"]),
        ([step(START, kind="wait"), step("0", error=ERROR)], [START]),
    ],
)
def test_a_further_attempt_forgets_what_failed_last(before, after):
    assert [each.key for each in drop_failures(before)] == after
