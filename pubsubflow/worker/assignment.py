"""An assignment: one task message that a worker holds, from its delivery to its last result."""

import asyncio
import secrets
import signal
import time
from typing import Protocol

import msgspec
from msgspec import Raw, Struct

from pubsubflow.bus import Delivery
from pubsubflow.model.traces import task_context, trace_id_of
from pubsubflow.model.wire.executor_spec import ExecutorSpec
from pubsubflow.model.wire.messages import (
    ALL_RUNS,
    NO_NODE,
    NOT_MAPPED,
    CancelMessage,
    Fence,
    LogMessage,
    Outcome,
    ResultMessage,
    StartedMessage,
    TaskError,
    decode_run_info,
    encode,
)
from pubsubflow.model.wire.task_resources import ResourcesSpec

_FIRST_ATTEMPT = 1
_LOG_MESSAGES = 1 << 19
_TURN_SECONDS = 8
_TURNS = 255
_DRAWN_BITS = 4
"""So many pieces of output for each draw in each turn have numbers of 31 bits."""


class TaskHeader(Struct, frozen=True, array_like=True):
    """The part of a TaskMessage that a worker reads; the fields are the message's."""

    run: int
    node: int
    map_index: int
    attempt: int
    delivery: int
    kind: str
    dag_id: str
    task_id: str
    source: str
    info: Raw
    inputs: Raw = Raw(b"\x80")
    elements: Raw = Raw(b"\x80")
    indexes: Raw = Raw(b"\x90")
    chain: tuple[int, ...] = ()
    timeouts: tuple[float | None, ...] = (None,)
    journal: Raw = Raw(b"\x90")
    apart: bool = False
    resources: ResourcesSpec | None = None
    executor: ExecutorSpec | None = None


decode_header = msgspec.msgpack.Decoder(TaskHeader).decode
_decode_parts = msgspec.msgpack.Decoder(list[Raw]).decode
_JOURNAL = TaskHeader.__struct_fields__.index("journal")
_CHAIN = TaskHeader.__struct_fields__.index("chain")
_TIMEOUTS = TaskHeader.__struct_fields__.index("timeouts")
_NIL = Raw(b"\xc0")


class AttemptOutcome(Struct, frozen=True):
    """The outcome of an attempt that the worker decides, because the runner cannot.

    Attributes:
        over_time: Whether the attempt's time limit was over.
    """

    outcome: Outcome
    error: TaskError | None = None
    over_time: bool = False

    def stopped_at(self, error: TaskError | None) -> "AttemptOutcome":
        """Return it with the place in the user's code that a runner's error names."""
        if self.error is None or error is None or not error.traceback:
            return self
        located = msgspec.structs.replace(self.error, traceback=error.traceback)
        return msgspec.structs.replace(self, error=located)


class RunnerRef(Protocol):
    """The runner process of an assignment, as far as the pool uses it through the assignment."""

    def stop(self, assignment: "Assignment") -> "list[Assignment]":
        """Stop an assignment; return what was sent ahead and does not begin any more."""

    def is_blocked_by_other(self, assignment: "Assignment") -> bool:
        """Return whether another assignment blocks the event loop."""

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the process and to all that it started."""

    def release(self, assignment: "Assignment") -> "Assignment | None":
        """Give up an assignment of which nothing is left to run; return what begins now."""


class Assignment:
    """A task message that a worker holds.

    Attributes:
        number: The worker's number for it.
        redelivered: Whether another worker may have had the message before (AMQP's word).
        node: The node of the chain that runs now; `after` is the one before.
        timeout_seconds: Timeout of the node that runs now.
        runner: The process that runs it; None while it waits.
        waits_since: When it came, if it had to wait for a process; time of the loop.
        started_at: When the node started, seconds since 1970; 0 for one that was sent ahead.
        decided_outcome: Set once the worker has decided the outcome and waits for the runner to
            stop.
        message_done: Whether its message is acknowledged or returned to the queue.
        returned: Whether its message is returned to the queue.
        buffered_lines: Output that is not published yet; `buffered_bytes` is its size.
        log_bytes: Size of the node's whole output.
        log_sequence: The number of its next LogMessage; 0 before the first.
        timeout_timer: Ends the node at its timeout.
        position: Its place among the assignments of its runner, from 1: its number in frames.
        losses: How often its process died while it ran beside others.
        apart: It runs in a process of its own, because it may have been the one that killed it, or
            because it declares resources.
        parked: It has waited for room, so its place was given to another message.
        peak_bytes: The most memory that its process was seen to hold, once that has ended.
        stack: Where it stood when it blocked the event loop.
    """

    __slots__ = (
        "after",
        "apart",
        "buffered_bytes",
        "buffered_lines",
        "decided_outcome",
        "delivery",
        "header",
        "log_bytes",
        "log_sequence",
        "losses",
        "message_done",
        "node",
        "number",
        "parked",
        "peak_bytes",
        "position",
        "redelivered",
        "returned",
        "runner",
        "stack",
        "started_at",
        "timeout_seconds",
        "timeout_timer",
        "waits_since",
    )

    def __init__(
        self, number: int, header: TaskHeader, delivery: Delivery, *, redelivered: bool
    ) -> None:
        self.number = number
        self.redelivered = redelivered
        self.header = header
        self.delivery = delivery
        self.node = header.node
        self.after = NO_NODE
        self.timeout_seconds = header.timeouts[0]
        self.runner: RunnerRef | None = None
        self.waits_since = self.started_at = 0.0
        self.decided_outcome: AttemptOutcome | None = None
        self.message_done = self.parked = False
        self.returned = False
        self.position = self.losses = self.peak_bytes = 0
        self.apart = header.resources is not None or (header.apart and header.kind == "async")
        self.stack = ""
        self.timeout_timer: asyncio.TimerHandle | None = None
        self.buffered_lines: list[str] = []
        self.buffered_bytes = 0
        self.log_bytes = self.log_sequence = 0

    @property
    def fence(self) -> Fence:
        """Run, node, map index, attempt and delivery of the node that runs now."""
        header = self.header
        if self.after == NO_NODE:
            return header.run, header.node, header.map_index, header.attempt, header.delivery
        # Chained nodes are never mapped nor retried in place: a retry is a message of its own.
        return header.run, self.node, NOT_MAPPED, _FIRST_ATTEMPT, header.delivery

    def log_fields(self) -> dict[str, str | int]:
        """Return the fields that identify it in the log: DAG, task, run, attempt and trace."""
        info = decode_run_info(self.header.info)
        context = task_context(info, *self.fence[1:])
        fields: dict[str, str | int] = {
            "dag_id": self.header.dag_id,
            "task": self.header.task_id,
            "run_id": info.run_id,
            "attempt": self.header.attempt,
        }
        return fields if context is None else fields | {"trace_id": trace_id_of(context)}

    def encode_without_journal(self) -> bytes:
        """Return the encoded TaskMessage of a redelivered assignment, without its journal."""
        # The journal in the message dates from its first delivery: an attempt on another worker
        # may have added entries since, so the runner has to fetch it.
        # In its parts, so that what only a newer manager knows of it is kept.
        parts = _decode_parts(self.delivery.data)
        parts[_JOURNAL] = _NIL
        return encode(parts)

    def advance(self, node: int) -> None:
        """Continue with the next node of the chain."""
        self.after, self.node = self.node, node
        self.timeout_seconds = self.header.timeouts[self.header.chain.index(node) + 1]
        self.started_at = time.time()
        self.log_bytes = 0

    def encode_result(self, worker: str, outcome: AttemptOutcome) -> bytes:
        """Return the encoded ResultMessage of the node that runs now, as the worker decides."""
        now = time.time()
        run, node, map_index, attempt, delivery = self.fence
        return encode(
            ResultMessage(
                run=run,
                node=node,
                map_index=map_index,
                attempt=attempt,
                delivery=delivery,
                worker=worker,
                outcome=outcome.outcome,
                started_at=self.started_at or now,
                ended_at=now,
                error=outcome.error,
                after=self.after,
                over_time=outcome.over_time,
                peak_memory=self.peak_bytes,
            )
        )

    def encode_started(self, worker: str) -> bytes:
        """Return the encoded StartedMessage of the node that runs now."""
        return encode(StartedMessage(*self.fence, worker, self.started_at))

    def encode_log(self) -> bytes:
        """Return the buffered output as an encoded LogMessage, and clear the buffer."""
        if not self.log_sequence:
            self.log_sequence = _first_log_sequence()
        message = LogMessage(*self.fence, self.log_sequence, "".join(self.buffered_lines))
        self.buffered_lines.clear()
        self.buffered_bytes = 0
        self.log_sequence += 1
        return encode(message)


def _first_log_sequence() -> int:
    """Return the number of the first piece of output of an execution.

    An order may come twice, on its own or by a sweeper, and each time as the first one: neither
    execution knows of the other, and must not write over its output. So a part is drawn; the rest
    is the time, which leaves the output of several in their order, except every 34 minutes.
    """
    turn = int(time.time()) // _TURN_SECONDS % _TURNS
    return (turn << _DRAWN_BITS | secrets.randbits(_DRAWN_BITS)) * _LOG_MESSAGES


class Engine(Protocol):
    """What a worker gives its assignments to: its own processes, or those of an executor."""

    @property
    def capacity(self) -> int:
        """How many assignments may be here at once."""

    @property
    def room(self) -> int:
        """How many more assignments may be here."""

    @property
    def slots(self) -> int:
        """How many assignments can run at once."""

    @property
    def busy(self) -> int:
        """How many assignments run."""

    @property
    def waiting(self) -> int:
        """How many assignments wait to be run."""

    @property
    def runners(self) -> int:
        """How many processes there are."""

    @property
    def bundles(self) -> set[str]:
        """Hashes of the bundles in use on this machine."""

    def submit(self, assignment: Assignment) -> None:
        """Take an assignment."""

    def stop(self, assignment: Assignment, outcome: AttemptOutcome) -> None:
        """End an assignment with this outcome."""

    def maintain(self) -> None:
        """Do what is to be done regularly."""

    def drain(self) -> None:
        """Take and begin no more."""

    def kill_all(self) -> None:
        """Return to the queue what is left."""

    def close(self) -> None:
        """Stop the timers."""


def is_cancelled(header: TaskHeader, order: CancelMessage) -> bool:
    """Return whether an order to stop tasks means this one, or one that follows it in its chain."""
    if order.run not in (header.run, ALL_RUNS):
        return False
    if order.below_delivery and header.delivery >= order.below_delivery:
        return False
    nodes = {(header.node, header.map_index), *((node, NOT_MAPPED) for node in header.chain)}
    return not order.tasks or not nodes.isdisjoint(order.tasks)


def without_chain(data: bytes) -> bytes:
    """Return an encoded TaskMessage for its first task alone: the manager hands out the others."""
    parts = _decode_parts(data)
    if len(parts) > _TIMEOUTS:
        first, *_ = msgspec.msgpack.decode(parts[_TIMEOUTS], type=list[Raw])
        parts[_CHAIN], parts[_TIMEOUTS] = Raw(encode(())), Raw(encode((first,)))
    return encode(parts)
