"""The execution of a task message in a runner: its nodes, their inputs and their results."""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw

from pubsubflow.authoring.bind import (
    BoundTask,
    RunnableDag,
    TaskOutcome,
    bind,
    instance_name,
    task_outcome,
    task_outputs,
)
from pubsubflow.authoring.runtime import results
from pubsubflow.authoring.runtime.host import TaskHost
from pubsubflow.authoring.runtime.wait_specs import TaskDeferred
from pubsubflow.authoring.tasks.large_results import large_result, most_bytes
from pubsubflow.authoring.tasks.retries import after_seconds, judged
from pubsubflow.errors import DefinitionError
from pubsubflow.model.traces import task_context
from pubsubflow.model.wire.messages import (
    NO_NODE,
    NOT_MAPPED,
    JournalEntry,
    Outcome,
    ResultMessage,
    RunInfo,
    TaskError,
    TaskMessage,
    decode_journal,
    decode_run_info,
    encode,
)
from pubsubflow.model.wire.outputs import PulledValues, decode_outputs, detach_pushed
from pubsubflow.model.wire.stored_results import (
    StoredInput,
    StoredResult,
    encode_stored,
    may_hold_stored,
    stored_part,
)
from pubsubflow.model.wire.task_questions import TaskQuestion
from pubsubflow.model.wire.task_resources import memory_exceeded
from pubsubflow.model.wire.waits import WaitSet, encode_wait_set
from pubsubflow.model.wire.worker_requests import (
    ConnectionRequest,
    JournalEntryRequest,
    JournalRequest,
    PullRequest,
    ResultRequest,
    StartRunRequest,
    TaskQuestionRequest,
    VariableRequest,
    WantedRun,
)
from pubsubflow.runner.failures import outcome_of
from pubsubflow.runner.limits import PeakMemory, lift_allocation_limit
from pubsubflow.runner.protocol import (
    RESULT,
    RESULT_HEADER,
    STORED,
    STORED_HEADER,
    RunnerSettings,
)
from pubsubflow.runner.redaction import Redactor

JOURNAL = "~journal"
_NIL = b"\xc0"
_CHAINED_BYTES = 16 << 20
_decode_value = msgspec.msgpack.Decoder().decode


class Missing(NamedTuple):
    """A value that the task needs and that is not in the task message.

    Attributes:
        key: Node of an input, name of a mapped argument, or JOURNAL.
        request: Fetches it.
    """

    key: int | str
    request: ResultRequest | JournalRequest | StoredInput


class TaskExecution:
    """The execution of a task message: of its node first, then of the nodes of its chain.

    Args:
        number: The number of the assignment in frames.
        message: The task message.
        settings: The runner's.
        redactor: Redacts the secrets that the runner's tasks have fetched.
        peak_memory: Of this process, if the task is alone in it.

    Attributes:
        node: The node that runs now; `after` is the one before.
        timeout_seconds: Timeout of the node that runs now.
        started_at: When it started, seconds since 1970.
        chain_stopped: No further node of the chain is to start.
    """

    def __init__(
        self,
        number: int,
        message: TaskMessage,
        settings: RunnerSettings,
        redactor: Redactor,
        peak_memory: PeakMemory | None = None,
    ) -> None:
        self.number = number
        self.message = message
        self.node = message.node
        self.after = NO_NODE
        self.timeout_seconds = message.timeouts[0]
        self.started_at = 0.0
        self.chain_stopped = False
        self._settings = settings
        self.redactor = redactor
        self._peak_memory = peak_memory
        self._chain_index = 0
        self._chained: dict[int, tuple[bytes, bytes]] = {}
        self._dag: RunnableDag
        self._call: BoundTask | None = None
        self._info: RunInfo | None = None
        self._retry: object = None

    @property
    def has_next(self) -> bool:
        """Whether another node may follow."""
        return not self.chain_stopped and self._chain_index < len(self.message.chain)

    def missing(self, dag: RunnableDag) -> list[Missing]:
        """Return what the node needs and is not in the task message."""
        if self._chain_index:
            return []
        message = self.message
        task = message.run, message.node, message.map_index
        found = [] if message.journal is not None else [Missing(JOURNAL, JournalRequest(*task))]
        found += [
            Missing(node, self.result_request(dag, node))
            for node in dag.tasks[self.node].inputs
            if node not in message.inputs
        ]
        here: Iterable[tuple[int | str, Raw]] = (*message.inputs.items(), *message.elements.items())
        found += [
            Missing(key, StoredInput(bytes(data)))
            for key, data in here
            if may_hold_stored(bytes(data))
        ]
        for position, mapped in enumerate(dag.tasks[self.node].mapped_arguments):
            if mapped.unused:
                continue
            if mapped.node is not None and mapped.name not in message.elements:
                index = message.indexes[position]
                found.append(Missing(mapped.name, self.result_request(dag, mapped.node, index)))
        return found

    def result_request(
        self, dag: RunnableDag, node: int, element: int | None = None
    ) -> ResultRequest:
        """Return the request for the result of a node of this run, or for one element of it."""
        task = dag.tasks[node]
        map_index = None if task.mapped else NOT_MAPPED
        if element is None and task.shares_index(dag.tasks[self.node]):
            map_index = self.message.map_index
        return ResultRequest(self.message.run, node, map_index, element)

    def bind(
        self, dag: RunnableDag, host: TaskHost, fetched: Mapping[int | str, bytes]
    ) -> BoundTask:
        """Return the call of the node that runs now.

        Args:
            dag: The DAG.
            host: For the task's context.
            fetched: The encoded values of `missing`, by key.

        Raises:
            DefinitionError: The arguments do not fit.
        """
        message, self._dag = self.message, dag
        self._retry = dag.nodes[self.node].options.retries
        info = self._info = self._info or decode_run_info(message.info)
        trace = None if info.trace is None else task_context(info, *self._fence()[1:])
        if self._chain_index:
            # A chained node gets the value of the node before it from memory: it starts before that
            # result is stored.
            inputs = {self.after: results.decode(self._chained[self.after][0])}
            self._call = bind(
                dag, self.node, info=info, attempt=1, host=host, inputs=inputs, trace=trace
            )
            return self._with_limits(self._call)
        inputs = {node: _decode_value(data) for node, data in message.inputs.items()}
        elements = {name: _decode_value(data) for name, data in message.elements.items()}
        journal: Sequence[JournalEntry] = message.journal or ()
        for key, data in fetched.items():
            if key == JOURNAL:
                journal = decode_journal(data)
            elif isinstance(key, int):
                inputs[key] = _decode_value(data)
            else:
                elements[key] = _decode_value(data)
        self._call = bind(
            dag,
            self.node,
            info=info,
            attempt=message.attempt,
            host=host,
            inputs=inputs,
            elements=elements,
            indexes=message.indexes,
            map_index=message.map_index,
            journal=journal,
            delivery=message.delivery,
            trace=trace,
        )
        return self._with_limits(self._call)

    def _with_limits(self, call: BoundTask) -> BoundTask:
        if self._settings.max_stored_bytes:
            call.context.most_pushed_bytes = self._settings.max_stored_bytes
        return call

    def chained_result(self, node: int) -> bytes | None:
        """Return the encoded result of a node of this chain: it may not be stored yet."""
        known = self._chained.get(node)
        return None if known is None else known[0] or _NIL

    def chained_outputs(self, dag: RunnableDag, request: PullRequest) -> PulledValues | None:
        """Return what a node of this chain has left under a key: it may not be stored yet."""
        if not self._chained or request.run_id is not None or request.dag_id is not None:
            return None
        for node, (value, outputs) in self._chained.items():
            if dag.tasks[node].task_id == request.task_id:
                pushed = decode_outputs(outputs).pushed
                part = pushed.get(request.key)
                given = (NOT_MAPPED, Raw(value or _NIL) if part is None else part, part is None)
                return PulledValues((given,), tuple(pushed))
        return None

    def _remember(self, value: bytes, outputs: bytes) -> None:
        """Keep what the node has left for those after it, as far as that is not too much."""
        self._chained[self.node] = (value, outputs)
        total = sum(len(value) + len(outputs) for value, outputs in self._chained.values())
        # The first ones are stored by now, most likely.
        while total > _CHAINED_BYTES and len(self._chained) > 1:
            total -= sum(map(len, self._chained.pop(next(iter(self._chained)))))

    def connection_request(self, name: str) -> ConnectionRequest:
        """Return the request for a connection, under the fence of the node that runs now."""
        return ConnectionRequest(*self._fence(), name)

    def start_run_request(self, wanted: WantedRun) -> StartRunRequest:
        """Return the request for a run, under the fence of the node that runs now."""
        return StartRunRequest(*self._fence(), wanted)

    def question_request(self, question: TaskQuestion) -> TaskQuestionRequest:
        """Return the request for an answer, under the fence of the node that runs now."""
        return TaskQuestionRequest(*self._fence(), question)

    def variable_request(self, name: str) -> VariableRequest:
        """Return the request for a variable, under the fence of the node that runs now."""
        return VariableRequest(*self._fence(), name)

    def journal_request(self, entry: JournalEntry) -> JournalEntryRequest:
        """Return the request that records an entry in the journal of the node that runs now.

        Raises:
            DefinitionError: Its value is too large for a message.
        """
        request = JournalEntryRequest(*self._fence(), entry)
        size, limit = len(encode(request)), self._settings.max_result_bytes
        if size > limit:
            raise DefinitionError(
                f"what step {entry.label!r} returned has {size:,} bytes and {limit:,} fit; "
                "write it to storage and return where it is"
            )
        return request

    def succeed(self, call: BoundTask, value: Any) -> bytes:
        """Return the result frame, and advance to the next node unless the chain ends here.

        Raises:
            DefinitionError: The value cannot be encoded, or is too large for a message.
        """
        settings = self._settings
        most = most_bytes(settings, self.message.executor, results.MAX_RESULT_BYTES)
        done = task_outcome(call, value, self.redactor.text, max_bytes=most)
        stored = self._stored(done)
        outputs, objects = done.outputs, [] if stored is None else [(0, done.value)]
        if settings.max_stored_bytes:
            outputs, parts = detach_pushed(outputs, settings.inline_bytes, self._refer)
            objects += parts
        then = NO_NODE
        # A branch ends the chain: the manager decides which tasks follow, and which are skipped. So
        # does a result that is to be stored: that of the next node must not come before it. And
        # changes of the state: they may conflict, and what follows must see them.
        ends = done.follow is not None or objects or done.state
        if self.has_next and not ends:
            then = self.message.chain[self._chain_index]
        result = self._result(
            Outcome.SUCCESS,
            value=done.value if stored is None else encode_stored(stored),
            length=done.length,
            emits=done.emits,
            follow=done.follow,
            published=done.published,
            then=then,
            outputs=outputs,
            state=done.state,
            map_name=done.map_name,
        )
        # Checked with its events, as a whole: the bus would refuse a larger message, and the task
        # would be run again for ever.
        payload = encode(result)
        limit = settings.max_result_bytes
        if len(payload) > limit:
            raise DefinitionError(
                f"the result has {len(payload):,} bytes with its events and {limit:,} fit; "
                "write it to storage and return where it is"
            )
        self._forget_call()
        if objects:
            header = STORED_HEADER.pack(STORED, self.number, self.node, NO_NODE, len(payload))
            return header + payload + encode(objects)
        frame = RESULT_HEADER.pack(RESULT, self.number, self.node, then) + payload
        if then != NO_NODE:
            self._remember(done.value, result.outputs)
            self.after, self.node = self.node, then
            self._chain_index += 1
            self.timeout_seconds = self.message.timeouts[self._chain_index]
        return frame

    def _refer(self, part: int, size: int) -> bytes:
        return encode_stored(stored_part(self._fence(), part, size))

    def _stored(self, done: TaskOutcome) -> StoredResult | None:
        """Return the reference to a result that is large; None for one that goes by itself."""
        settings, fence = self._settings, self._fence()
        if done.follow is None:
            return large_result(settings, self._dag.tasks, fence, len(done.value))
        return None  # the manager reads what a branch returned

    def fail(self, error: BaseException) -> bytes:
        """Return the result frame of an attempt that raised, or waits."""
        if isinstance(error, TaskDeferred):
            try:
                return self._defer(error.wait_set)
            except (DefinitionError, TypeError, ValueError) as unfit:
                error = unfit
        memory = None if self.message.resources is None else self.message.resources.memory
        if memory is not None and isinstance(error, MemoryError):
            lift_allocation_limit()
            outcome, described = outcome_of(error)
            described = msgspec.structs.replace(described, message=memory_exceeded(memory))
            return self.end(outcome, described)
        outcome, described = outcome_of(error)
        if self._retry is not None:
            described = judged(self._retry, error, described)
        described = self.redactor.error(described)
        return self.end(outcome, described, retry_after=after_seconds(error))

    def _defer(self, wait_set: WaitSet) -> bytes:
        data = encode_wait_set(wait_set)
        size, limit = len(data), self._settings.max_result_bytes
        # The bus would refuse a larger message, and the task would be run again for ever.
        if size > limit:
            raise DefinitionError(
                f"what {wait_set.label!r} waits for has {size:,} bytes and {limit:,} fit"
            )
        return self.end(Outcome.DEFERRED, None, wait_set=data)

    def end(self, outcome: Outcome, error: TaskError | None, **facts: Any) -> bytes:
        """Return the frame of a result after which no further node of the chain runs."""
        self.chain_stopped = True
        if self._call is not None and outcome is not Outcome.DEFERRED:
            outputs = task_outputs(self._call, self.redactor.text)
            # What does not fit beside the error is not worth losing that.
            if outputs and len(outputs) <= self._settings.max_result_bytes // 2:
                facts["outputs"] = outputs
            facts["map_name"] = instance_name(self._call, self.redactor.text)
        self._forget_call()
        header = RESULT_HEADER.pack(RESULT, self.number, self.node, NO_NODE)
        return header + encode(self._result(outcome, error=error, **facts))

    def _forget_call(self) -> None:
        """Give up the call of a node that has ended."""
        # Its context leads back here, over the host: without this the collector would have to find
        # some fifty objects of each task.
        self._call = None

    def _result(self, outcome: Outcome, **facts: Any) -> ResultMessage:
        return ResultMessage(
            *self._fence(),
            self._settings.worker,
            outcome,
            self.started_at,
            time.time(),
            after=self.after,
            peak_memory=0 if self._peak_memory is None else self._peak_memory.read(),
            **facts,
        )

    def _fence(self) -> tuple[int, int, int, int, int]:
        """Return run, node, map index, attempt and delivery of the node that runs now."""
        message = self.message
        if self._chain_index:
            return message.run, self.node, NOT_MAPPED, 1, message.delivery
        return message.run, self.node, message.map_index, message.attempt, message.delivery
