"""One task message being worked on: which node runs, what it gets, what it gave."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw

from pubsubflow.authoring.runtime import results
from pubsubflow.authoring.runtime.bind import Call, bind, finish
from pubsubflow.authoring.runtime.context import Host
from pubsubflow.authoring.runtime.journal import TaskDeferred
from pubsubflow.errors import DefinitionError
from pubsubflow.model.runs.clearing import LIFE
from pubsubflow.model.runs.waits import encode_waiting
from pubsubflow.model.traces import task_context
from pubsubflow.model.wire.messages import (
    NO_NODE,
    NOT_MAPPED,
    Outcome,
    ResultMessage,
    RunInfo,
    Step,
    TaskError,
    TaskMessage,
    decode_run_info,
    decode_steps,
    encode,
)
from pubsubflow.model.wire.worker_requests import AskConnection, AskResult, AskSteps, RecordStep
from pubsubflow.runner.dag_cache import KnownDag
from pubsubflow.runner.failures import outcome_of
from pubsubflow.runner.protocol import RESULT, RESULT_HEAD, RunnerSettings
from pubsubflow.runner.redaction import Mask

RECORD = "~record"
_decode_value = msgspec.msgpack.Decoder().decode


class Missing(NamedTuple):
    """Something that did not travel along.

    Attributes:
        place: Node of an input, name of a factor, or RECORD.
        question: What to ask for.
    """

    place: int | str
    question: AskResult | AskSteps


class Work:
    """A task message at work: its head first, then the nodes of its chain.

    Args:
        number: The worker's ticket.
        message: The task message.
        settings: The runner's.
        mask: Hides what the runner's tasks must not tell.

    Attributes:
        node: The node that runs now; `after` is the one before.
        halted: Go on with no chain.
    """

    def __init__(
        self, number: int, message: TaskMessage, settings: RunnerSettings, mask: Mask
    ) -> None:
        self.number = number
        self.message = message
        self.node = message.node
        self.after = NO_NODE
        self.halted = False
        self._settings = settings
        self.mask = mask
        self._position = 0
        self._value = b""
        self._info: RunInfo | None = None
        self._started_at = 0.0

    @property
    def goes_on(self) -> bool:
        """Whether another node may follow."""
        return not self.halted and self._position < len(self.message.chain)

    @property
    def timeout_seconds(self) -> float | None:
        """How long the node that runs now may take."""
        timeouts = self.message.timeouts
        return timeouts[self._position] if self._position < len(timeouts) else None

    def start(self) -> None:
        """Note that the node starts now."""
        self._started_at = time.time()

    def missing(self, known: KnownDag) -> list[Missing]:
        """Name what the node needs and did not travel along."""
        if self._position:
            return []
        message = self.message
        address = message.run, message.node, message.map_index
        found = [] if message.steps is not None else [Missing(RECORD, AskSteps(*address))]
        found += [
            Missing(node, self.question(known, node))
            for node in known.inputs[self.node]
            if node not in message.inputs
        ]
        for place, (name, origin) in enumerate(known.factors[self.node]):
            if origin is not None and name not in message.elements:
                index = message.indexes[place]
                found.append(Missing(name, self.question(known, origin, index)))
        return found

    def question(self, known: KnownDag, node: int, element: int | None = None) -> AskResult:
        """Ask for the result of a node of this run, or for one element of it."""
        map_index = None if known.mapped[node] else NOT_MAPPED
        return AskResult(self.message.run, node, map_index, element)

    def bind(self, known: KnownDag, host: Host, fetched: Mapping[int | str, bytes]) -> Call:
        """Return the call of the node that runs now.

        Args:
            known: The DAG.
            host: For the task's context.
            fetched: The encoded answers to `missing`, by place.

        Raises:
            DefinitionError: The arguments do not fit.
        """
        message = self.message
        if self._info is None:
            self._info = decode_run_info(message.info)
        if self._position:
            inputs = {self.after: results.decode(self._value)}
            return bind(
                known.dag,
                self.node,
                info=self._info,
                attempt=1,
                host=host,
                inputs=inputs,
                trace=self._trace(self._info),
            )
        more = {place: _decode_value(data) for place, data in fetched.items() if place != RECORD}
        steps: Sequence[Step] | None = message.steps
        if steps is None:
            steps = decode_steps(fetched[RECORD])
        return bind(
            known.dag,
            self.node,
            info=self._info,
            attempt=message.attempt,
            host=host,
            inputs=_values(message.inputs, more, int),
            elements=_values(message.elements, more, str),
            indexes=message.indexes,
            map_index=message.map_index,
            steps=steps,
            life=message.delivery // LIFE,
            trace=self._trace(self._info),
        )

    def connection(self, name: str) -> AskConnection:
        """Return what asks for a connection on behalf of the node that runs now."""
        return AskConnection(*self._fence(), name)

    def _trace(self, info: RunInfo) -> str | None:
        """Return the trace context of the node that runs now."""
        _, *place = self._fence()
        return task_context(info, *place)

    def step(self, step: Step) -> RecordStep:
        """Return what asks for a step of the node that runs now to be recorded.

        Raises:
            DefinitionError: Its value is too large to travel.
        """
        question = RecordStep(*self._fence(), step)
        size, limit = len(encode(question)), self._settings.max_result_bytes
        if size > limit:
            raise DefinitionError(
                f"what step {step.label!r} returned has {size:,} bytes and {limit:,} fit; "
                "write it to storage and return where it is"
            )
        return question

    def succeed(self, call: Call, value: Any) -> bytes:
        """Return the result frame, and go on to the next node unless the chain ends here.

        Raises:
            DefinitionError: The value cannot be carried.
        """
        done = finish(call, value)
        then = NO_NODE
        if self.goes_on and done.follow is None:
            then = self.message.chain[self._position]
        result = self._result(
            Outcome.SUCCESS,
            value=done.value,
            length=done.length,
            emits=done.emits,
            follow=done.follow,
            published=done.published,
            then=then,
        )
        payload = encode(result)
        limit = self._settings.max_result_bytes
        if len(payload) > limit:
            raise DefinitionError(
                f"the result has {len(payload):,} bytes with its events and {limit:,} fit; "
                "write it to storage and return where it is"
            )
        frame = RESULT_HEAD.pack(RESULT, self.number, self.node, then) + payload
        if then != NO_NODE:
            self.after, self.node, self._value = self.node, then, done.value
            self._position += 1
        return frame

    def fail(self, error: BaseException) -> bytes:
        """Return the result frame of an attempt that raised, or waits."""
        if isinstance(error, TaskDeferred):
            return self.end(Outcome.DEFERRED, None, waiting=encode_waiting(error.waiting))
        outcome, told = outcome_of(error)
        return self.end(outcome, self.mask.error(told))

    def end(self, outcome: Outcome, error: TaskError | None, **facts: Any) -> bytes:
        """Return the frame of a result that ends the chain."""
        self.halted = True
        head = RESULT_HEAD.pack(RESULT, self.number, self.node, NO_NODE)
        return head + encode(self._result(outcome, error=error, **facts))

    def _result(self, outcome: Outcome, **facts: Any) -> ResultMessage:
        return ResultMessage(
            *self._fence(),
            self._settings.worker,
            outcome,
            self._started_at,
            time.time(),
            after=self.after,
            **facts,
        )

    def _fence(self) -> tuple[int, int, int, int, int]:
        """Return run, node, map index, attempt and delivery of the node that runs now."""
        message = self.message
        if self._position:
            return message.run, self.node, NOT_MAPPED, 1, message.delivery
        return message.run, self.node, message.map_index, message.attempt, message.delivery


def _values(
    inline: Mapping[Any, Raw], fetched: Mapping[int | str, Any], kind: type
) -> dict[Any, Any]:
    values = {place: _decode_value(data) for place, data in inline.items()}
    values.update((place, value) for place, value in fetched.items() if isinstance(place, kind))
    return values
