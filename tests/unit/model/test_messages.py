"""The wire format: what is written is read, also by an older or a newer version."""

import typing
from datetime import UTC, datetime

import msgspec
import pytest
from msgspec import Raw, Struct

from pubsubflow.errors import DefinitionError
from pubsubflow.model.values.state import StateChange
from pubsubflow.model.wire import heartbeat, held_tasks, messages, worker_requests
from pubsubflow.model.wire.heartbeat import Heartbeat, decode_heartbeat
from pubsubflow.model.wire.held_tasks import HeldTasksReply, HeldTasksRequest
from pubsubflow.model.wire.messages import (
    CancelMessage,
    EmittedEvent,
    EventInfo,
    FiredMessage,
    JournalEntry,
    LogMessage,
    NewEvent,
    Outcome,
    PublishedEvent,
    ResultMessage,
    RunInfo,
    RunTrace,
    StartedMessage,
    TaskError,
    TaskMessage,
    TriggersChangedMessage,
    WorkerLostMessage,
    encode,
)
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.model.wire.worker_requests import (
    Chunk,
    EventsRequest,
    JournalEntryRequest,
    JournalRequest,
    ResultRequest,
    SourceRequest,
)

MOMENT = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
EVENT = EventInfo("e", "x://a", {"n": [1, None, {"a": "é"}]}, "p", MOMENT, "api")
TRACE = RunTrace("00-" + "a" * 32 + "-" + "b" * 16 + "-01", ("c",), recorded=True)
INFO = RunInfo(1, "r", "d", "dataset", {"a": 1}, MOMENT, None, "why", MOMENT, (EVENT,), (1,), TRACE)
EXAMPLES = [
    EVENT,
    INFO,
    TaskMessage(
        1, 2, -1, 1, 1, "async", "d", "t", "h", Raw(encode(INFO)),
        {0: Raw(b"\xc0")}, {"x": Raw(b"\x01")}, (3,), (4, 5), (None, 1.5, None),
    ),
    ResultMessage(
        1, 2, -1, 1, 1, "w", Outcome.FAILED, 1.0, 2.0, b"\xc0", 3,
        (EmittedEvent("x://a", {"n": 1}, "p"),),
        TaskError("ValueError", "no", "tb", final=True), 1, 3, ("a",), ("x://b",),
    ),
    PublishedEvent(1, 2, -1, "1.2.-1.0", "x://a", {"n": 1}, "p", MOMENT),
    StartedMessage(1, 2, -1, 1, 1, "w", 1.0),
    LogMessage(1, 2, -1, 1, 1, 0, "text"),
    WorkerLostMessage("w"),
    Heartbeat("w", "host", 1, 8, 2, ("default", "gpu"), 3, 5, "0.2.0", 2),
    CancelMessage(1),
    JournalEntry("0", "load", "step", b"\x01", TaskError("ValueError", "no")),
    FiredMessage(
        7, 1, 2, 1, 2, -1, 3, 0, b"\xc0", "id", "p", MOMENT, b"\x05", TaskError("E", "no"), "r"
    ),
    TriggersChangedMessage(has_new=True, ended=(1, 2)),
    Chunk(b"data", 4),
    HeldTasksRequest(((1, 2, -1, 1, 1),)),
    HeldTasksReply(((1, 2, -1, 1, 1),)),
]  # fmt: skip
DECODERS = {
    TaskMessage: messages.decode_task,
    ResultMessage: messages.decode_result,
    PublishedEvent: messages.decode_published,
    StartedMessage: messages.decode_started,
    LogMessage: messages.decode_log,
    WorkerLostMessage: messages.decode_worker_lost,
    Heartbeat: decode_heartbeat,
    JournalEntry: messages.decode_journal_entry,
    FiredMessage: messages.decode_fired,
    TriggersChangedMessage: messages.decode_triggers_changed,
    CancelMessage: messages.decode_cancel,
    RunInfo: messages.decode_run_info,
    Chunk: worker_requests.decode_chunk,
    EventInfo: msgspec.msgpack.Decoder(EventInfo).decode,
    HeldTasksRequest: held_tasks.decode_held_request,
    HeldTasksReply: held_tasks.decode_held_reply,
}
by_name = pytest.mark.parametrize("message", EXAMPLES, ids=lambda each: type(each).__name__)


@by_name
def test_a_message_is_read_as_it_was_written(message):
    assert DECODERS[type(message)](encode(message)) == message


@by_name
def test_a_newer_version_may_add_fields_at_the_end(message):
    fields = msgspec.msgpack.decode(encode(message))
    newer = encode([*fields, "new", {"newer": 1}])
    assert DECODERS[type(message)](newer) == message


@by_name
def test_an_older_version_leaves_out_fields_that_have_defaults(message):
    kind = type(message)
    described = msgspec.structs.fields(kind)
    needed = [each for each in described if each.required]
    fields = msgspec.msgpack.decode(encode(message))
    older = DECODERS[kind](encode(fields[: len(needed)]))
    for each in described:
        if each.required:
            assert getattr(older, each.name) == getattr(message, each.name)


@by_name
def test_a_message_with_too_few_fields_is_refused(message):
    needed = sum(each.required for each in msgspec.structs.fields(type(message)))
    with pytest.raises(msgspec.ValidationError):
        DECODERS[type(message)](encode([None] * (needed - 1)))


def test_the_examples_cover_every_message_that_is_an_array():
    arrays = {
        each
        for each in (
            vars(messages) | vars(worker_requests) | vars(heartbeat) | vars(held_tasks)
        ).values()
        if isinstance(each, type) and issubclass(each, Struct) and each.__struct_config__.array_like
    }
    covered = set(map(type, EXAMPLES)) | {EmittedEvent, TaskError, RunTrace, StateChange}
    covered.add(messages._ResultHeader)  # the first fields of a result, and no message
    covered |= {
        worker_requests.WantedRun,
        worker_requests.PreviousRun,
        *typing.get_args(worker_requests.WorkerRequest),
    }
    assert arrays == covered


@pytest.mark.parametrize(
    "ask",
    [
        SourceRequest("h", 7),
        ResultRequest(1, 2, None, 3, 4),
        ResultRequest(1, 2),
        EventsRequest(1, 500),
        JournalRequest(1, 2, -1, 3),
        JournalEntryRequest(1, 2, -1, 1, 1, JournalEntry("0", "a", "step")),
    ],
)
def test_questions_are_told_apart(ask):
    assert worker_requests.decode_worker_request(encode(ask)) == ask


def test_the_subject_of_a_task_is_one_per_delivery():
    task = EXAMPLES[2]
    again = msgspec.structs.replace(task, delivery=2)
    assert Subjects.task("gpu", task) == "psf.task.gpu.async.1.2.-1.1.1"
    assert Subjects.task("gpu", again) != Subjects.task("gpu", task)


def test_messages_about_one_run_share_a_partition():
    assert Subjects.inbound(Subjects.RESULT, 17) == "psf.in.result.1"


def test_a_new_event_names_its_dataset_by_the_normalised_uri():
    assert NewEvent("X://A/").dataset == "x://a"
    with pytest.raises(DefinitionError, match="holds white space"):
        NewEvent("no uri")
