"""One task message in the worker's hands, from its delivery to its last result."""

import asyncio
import time
from typing import TYPE_CHECKING

import msgspec
from msgspec import Raw, Struct

from pubsubflow.bus import Delivery
from pubsubflow.model.traces import task_context, trace_id_of
from pubsubflow.model.wire.messages import (
    NO_NODE,
    NOT_MAPPED,
    LogMessage,
    Outcome,
    ResultMessage,
    StartedMessage,
    TaskError,
    decode_run_info,
    decode_task,
    encode,
)

if TYPE_CHECKING:
    from pubsubflow.worker.consumer import Intake
    from pubsubflow.worker.runner_process import Runner

_FIRST_ATTEMPT = 1


class TaskHead(Struct, frozen=True, array_like=True):
    """The part of a TaskMessage that a worker looks at; the fields are the message's."""

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


decode_head = msgspec.msgpack.Decoder(TaskHead).decode


class Verdict(Struct, frozen=True):
    """How the worker says that an attempt ended, where the runner cannot."""

    outcome: Outcome
    error: TaskError | None = None


class Ticket:
    """A task message at work.

    Attributes:
        number: The worker's name for it, also in frames.
        doubtful: Whether somebody may have had the message before.
        node: The node of the chain that runs now; `after` is the one before.
        intake: Where it came from.
        runner: Who runs it; None while it waits.
        since: When the node started, seconds since 1970.
        verdict: Set when the worker has decided its end and waits for the runner to obey.
        stored: Whether its message is acknowledged or given back.
        returned: Whether it is given back.
        lines: Output that has not left yet; `held_bytes` is its size.
        log_bytes: Size of the node's whole output.
        log_pieces: How many LogMessages of the node have left.
        timer: Watches over the node's timeout.
    """

    __slots__ = (
        "after",
        "delivery",
        "doubtful",
        "head",
        "held_bytes",
        "intake",
        "lines",
        "log_bytes",
        "log_pieces",
        "node",
        "number",
        "returned",
        "runner",
        "since",
        "stored",
        "timer",
        "verdict",
    )

    def __init__(self, number: int, head: TaskHead, delivery: Delivery, intake: "Intake") -> None:
        self.number = number
        self.doubtful = intake.doubts(delivery)
        self.head = head
        self.delivery = delivery
        self.intake = intake
        self.node = head.node
        self.after = NO_NODE
        self.runner: Runner | None = None
        self.since = 0.0
        self.verdict: Verdict | None = None
        self.stored = False
        self.returned = False
        self.timer: asyncio.TimerHandle | None = None
        self.lines: list[str] = []
        self.held_bytes = 0
        self.log_bytes = 0
        self.log_pieces = 0

    @property
    def fence(self) -> tuple[int, int, int, int, int]:
        """Run, node, map index, attempt and delivery of the node that runs now."""
        head = self.head
        if self.after == NO_NODE:
            return head.run, head.node, head.map_index, head.attempt, head.delivery
        return head.run, self.node, NOT_MAPPED, _FIRST_ATTEMPT, head.delivery

    @property
    def timeout_seconds(self) -> float | None:
        """How long the node that runs now may take."""
        head = self.head
        place = 0 if self.after == NO_NODE else head.chain.index(self.node) + 1
        return head.timeouts[place] if place < len(head.timeouts) else None

    def names(self) -> dict[str, str | int]:
        """Return what a line of the log says of it: its DAG, task, run, attempt and trace."""
        info = decode_run_info(self.head.info)
        context = task_context(info, *self.fence[1:])
        names: dict[str, str | int] = {
            "dag_id": self.head.dag_id,
            "task": self.head.task_id,
            "run_id": info.run_id,
            "attempt": self.head.attempt,
        }
        return names if context is None else names | {"trace_id": trace_id_of(context)}

    def order(self) -> bytes:
        """Return the encoded TaskMessage for the runner.

        Of a task that somebody may have had before, the record that travels along may be out of
        date: it is asked for.
        """
        if not self.doubtful or self.head.kind != "async":
            return self.delivery.data
        return encode(msgspec.structs.replace(decode_task(self.delivery.data), steps=None))

    def advance(self, node: int) -> None:
        """Go on with the next node of the chain."""
        self.after, self.node = self.node, node
        self.since = time.time()
        self.log_bytes = self.log_pieces = 0

    def result(self, worker: str, verdict: Verdict) -> bytes:
        """Encode the result of the node that runs now as the worker sees it."""
        now = time.time()
        started_at = self.since or now
        run, node, map_index, attempt, delivery = self.fence
        return encode(
            ResultMessage(
                run=run,
                node=node,
                map_index=map_index,
                attempt=attempt,
                delivery=delivery,
                worker=worker,
                outcome=verdict.outcome,
                started_at=started_at,
                ended_at=now,
                error=verdict.error,
                after=self.after,
            )
        )

    def started(self, worker: str) -> bytes:
        """Encode that the node that runs now has started."""
        return encode(StartedMessage(*self.fence, worker, self.since))

    def take_log(self) -> bytes:
        """Encode the output that has not left yet, and count it as gone."""
        message = LogMessage(*self.fence, self.log_pieces, "".join(self.lines))
        self.lines.clear()
        self.held_bytes = 0
        self.log_pieces += 1
        return encode(message)
