"""The supervisor's side of the task SDK: what an attempt sends is answered by our managers.

`send` is all that the SDK calls, `asend` from async code. A message is an object of
`airflow.sdk.execution_time.comms`, and so is its answer. Handlers are found by the
message that they declare.
"""

import asyncio
import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from airflow.sdk.exceptions import ErrorType
from airflow.sdk.execution_time import comms as messages

from pubsubflow.airflow.inside.channel import Channel
from pubsubflow.airflow.inside.questions.assets import AssetQuestions
from pubsubflow.airflow.inside.questions.handling import (
    OK,
    UnsupportedError,
    absent,
    answers,
    handlers_of,
)
from pubsubflow.airflow.inside.questions.runs import RunQuestions
from pubsubflow.airflow.protocol import HumanQuestion

RETURN_VALUE = "return_value"
_SOON = timedelta(minutes=1)
# A pull that includes earlier runs requests each of them.
_MOST_RUNS_BEFORE = 50
REFUSED = {
    "GetHITLDetailResponse": "looking for an answer of people",
    "UpdateHITLDetail": "answering for people",
}
"""Message → what a task cannot do by it, and why."""

OF_WIRE = frozenset({"ResendLoggingFD"})
"""Messages that only processes of operators send, which `wire` answers."""

_DEMANDS = ("Get", "Create", "Set", "Put", "Delete", "Clear", "Update", "Trigger")
# Those that operators use unless they are given another one, and that need nothing.
_DEFAULT_CONNECTIONS: dict[str, dict[str, Any]] = {
    "fs_default": {"conn_id": "fs_default", "conn_type": "fs", "extra": '{"path": "/"}'},
    "aws_default": {"conn_id": "aws_default", "conn_type": "aws"},
    "google_cloud_default": {
        "conn_id": "google_cloud_default",
        "conn_type": "google_cloud_platform",
    },
    "docker_default": {"conn_id": "docker_default", "conn_type": "docker"},
    "kubernetes_default": {"conn_id": "kubernetes_default", "conn_type": "kubernetes"},
}


Interval = Callable[[datetime], tuple[datetime | None, datetime | None]]


def _as_it_is(tick: datetime) -> tuple[datetime | None, datetime | None]:
    return tick, tick


class ClientQuestions(RunQuestions, AssetQuestions):
    """Answers any code inside, which may have no task.

    Args:
        channel: To the client; None when there is none, as in tests of a file alone.
    """

    _handlers: ClassVar[dict[str, str]] = {}

    def __init_subclass__(cls) -> None:
        cls._handlers = handlers_of(cls)

    def __init__(self, channel: Channel | None) -> None:
        super().__init__(channel)
        self.socket = None  # main() of the SDK closes it, and there is none

    def send(self, msg: Any) -> Any:
        """Answer a message."""
        name = type(msg).__name__
        handler = self._handlers.get(name)
        if handler is not None:
            return getattr(self, handler)(msg)
        if name in REFUSED:
            raise UnsupportedError(REFUSED[name])
        # A newer SDK tells more; what requests or changes something must be known.
        if name.startswith(_DEMANDS):
            raise UnsupportedError(name)
        return OK

    async def asend(self, msg: Any) -> Any:
        """Answer a message of async code."""
        return await asyncio.to_thread(self.send, msg)

    @answers("GetConnection")
    def get_connection(self, msg: Any) -> Any:
        """Answer with a connection."""
        found = self.request("connection", name=msg.conn_id)
        found = found or _DEFAULT_CONNECTIONS.get(msg.conn_id)
        if found is None:
            return absent(ErrorType.CONNECTION_NOT_FOUND, conn_id=msg.conn_id)
        empty = dict.fromkeys(("schema", "login", "password", "port", "extra", "host"))
        return messages.ConnectionResult(**{**empty, **found})

    @answers("GetVariable")
    def get_variable(self, msg: Any) -> Any:
        """Answer with a variable."""
        value = self.request("variable", name=msg.key)
        if value is None:
            return absent(ErrorType.VARIABLE_NOT_FOUND, key=msg.key)
        return messages.VariableResult(key=msg.key, value=value)

    @answers("MaskSecret")
    def mask_secret(self, msg: Any) -> Any:  # noqa: ARG002
        """Do nothing: the SDK masks in this process."""
        return OK


ClientQuestions._handlers = handlers_of(ClientQuestions)  # noqa: SLF001 - as of its subclasses


class AttemptQuestions(ClientQuestions):
    """Answers one attempt, and keeps what it says of itself.

    Args:
        channel: To the client; None when there is none.
        pushed: What the attempt had pushed before it was deferred.

    Attributes:
        outcome: The message that says how it ended.
        skipped: Task ids that a branch or short circuit skips; None if it is neither.
        rendered: Template fields as rendered.
        map_name: Name of the instance.
        pushed: Key → value of its XComs.
        length: How many elements its result has for a task that is mapped over it.
        question: Its question to people.
        address: DAG, run, task and map index of the attempt.
        interval_of: Returns the data interval of the run of a tick.
        partition: The partition key of its run.
    """

    def __init__(self, channel: Channel | None, pushed: dict[str, Any] | None = None) -> None:
        super().__init__(channel)
        self.outcome: Any = None
        self.skipped: list[str] | None = None
        self.rendered: dict[str, Any] = {}
        self.map_name = ""
        self.pushed: dict[str, Any] = dict(pushed or {})
        self.address: tuple[str, str, str, int] = ("", "", "", -1)
        self.first_look: Any = None
        self.partition: str | None = None
        self.length: int | None = None
        self.question: HumanQuestion | None = None
        self.interval_of: Interval = _as_it_is

    @answers(
        "SucceedTask", "TaskState", "DeferTask", "RetryTask", "RescheduleTask", "AwaitInputTask"
    )
    def keep_outcome(self, msg: Any) -> Any:
        """Keep how the attempt has ended."""
        self.outcome = msg
        return OK

    @answers("CreateHITLDetailPayload")
    def create_hitl_detail_payload(self, msg: Any) -> Any:
        """Keep a question to people, which the attempt then waits for."""
        self.question = HumanQuestion(
            subject=msg.subject,
            options=tuple(msg.options),
            body=msg.body,
            defaults=tuple(msg.defaults or ()),
            multiple=bool(msg.multiple),
            params=dict(msg.params or {}),
            people=tuple(each.name for each in msg.assigned_users or ()),
        )
        return messages.HITLDetailRequestResult(**msg.model_dump(exclude={"type"}))

    @answers("SkipDownstreamTasks")
    def skip_downstream_tasks(self, msg: Any) -> Any:
        """Keep what is skipped."""
        self.skipped = [each if isinstance(each, str) else each[0] for each in msg.tasks]
        return OK

    @answers("SetRenderedFields")
    def set_rendered_fields(self, msg: Any) -> Any:
        """Keep the template fields."""
        self.rendered = dict(msg.rendered_fields)
        return OK

    @answers("SetRenderedMapIndex")
    def set_rendered_map_index(self, msg: Any) -> Any:
        """Keep the name of the instance."""
        self.map_name = msg.rendered_map_index or ""
        return OK

    @answers("ValidateInletsAndOutlets")
    def validate_inlets_and_outlets(self, msg: Any) -> Any:  # noqa: ARG002
        """Answer that all assets are in use."""
        return messages.InactiveAssetsResult(inactive_assets=[])

    @answers("SetXCom")
    def set_xcom(self, msg: Any) -> Any:
        """Keep a value for the end of the attempt; others see it from now on."""
        self._check_own(msg, "setting an XCom")
        self.pushed[msg.key] = msg.value
        if msg.key == RETURN_VALUE:
            # It comes at the end of an attempt, which stores it.
            self.length = msg.mapped_length
        else:
            self.fact("leave", key=msg.key, value=msg.value)
        return OK

    @answers("DeleteXCom")
    def delete_xcom(self, msg: Any) -> Any:
        """Remove a value of this attempt."""
        self._check_own(msg, "removing an XCom")
        if self.pushed.pop(msg.key, None) is not None and msg.key != RETURN_VALUE:
            self.fact("take_away", key=msg.key)
        return OK

    def _check_own(self, msg: Any, what: str) -> None:
        index = -1 if msg.map_index is None else msg.map_index
        if (msg.dag_id, msg.run_id, msg.task_id, index) != self.address:
            raise UnsupportedError(f"{what} of another task ({msg.task_id!r})")

    @answers("GetXCom")
    def get_xcom(self, msg: Any) -> Any:
        """Answer with one value."""
        index = None if msg.map_index in (None, -1) else msg.map_index
        values = next(filter(None, self._by_run(msg, index)), None)
        return messages.XComResult(key=msg.key, value=values[0] if values else None)

    @answers("GetXComCount")
    def get_xcom_count(self, msg: Any) -> Any:
        """Answer how many instances of a task have left a value."""
        return messages.XComCountResponse(len=len(self._values(msg, None)))

    @answers("GetXComSequenceItem")
    def get_xcom_sequence_item(self, msg: Any) -> Any:
        """Answer with the value of one instance."""
        values = self._values(msg, None)
        try:
            return messages.XComSequenceIndexResult(root=values[msg.offset])
        except IndexError:
            return absent(ErrorType.XCOM_NOT_FOUND, offset=msg.offset)

    @answers("GetXComSequenceSlice")
    def get_xcom_sequence_slice(self, msg: Any) -> Any:
        """Answer with the values of some instances, the newest run's first."""
        values = list(itertools.chain.from_iterable(self._by_run(msg, None)))
        return messages.XComSequenceSliceResult(root=values[msg.start : msg.stop : msg.step])

    @answers("GetTICount")
    def get_ti_count(self, msg: Any) -> Any:
        """Answer how many instances of tasks there are, in this run also those to come."""
        own = (msg.dag_id, msg.run_ids) == (self.address[0], [self.address[1]])
        if own and msg.task_ids and msg.states is None and msg.map_index is None:
            return messages.TICount(count=sum(map(self._instances, msg.task_ids)))
        return messages.TICount(count=self.count_tasks(msg))

    def _instances(self, task_id: str) -> int:
        if task_id == self.address[2]:
            # The SDK relates map indexes of one group by it: any number above its own will do.
            return max(self.address[3] + 1, 1)
        dag_id, run_id = self.address[:2]
        found = self.request(
            "xcom", dag_id=dag_id, run_id=run_id, task_id=task_id, key=RETURN_VALUE, map_index=None
        )
        return len(found)

    def _by_run(self, msg: Any, index: int | None) -> Iterator[list[Any]]:
        """Yield the values of the run that a message names; of those before, too, if it says so."""
        yield self._values(msg, index)
        run = self.find_run(msg) if getattr(msg, "include_prior_dates", False) else None
        for _ in range(_MOST_RUNS_BEFORE):
            if run is None:
                return
            date = run["logical_date"] or run["created_at"]
            run = self.fact("run_before", dag_id=msg.dag_id, before=date, state=None)
            if run is not None:
                yield self._values(msg.model_copy(update={"run_id": run["run_id"]}), index)

    def _values(self, msg: Any, index: int | None) -> list[Any]:
        own = (msg.dag_id, msg.run_id, msg.task_id) == self.address[:3]
        if own and msg.key in self.pushed and index in (None, self.address[3]):
            return [self.pushed[msg.key]]
        found: list[Any] = self.request(
            "xcom",
            dag_id=msg.dag_id,
            run_id=msg.run_id,
            task_id=msg.task_id,
            key=msg.key,
            map_index=index,
        )
        return found

    @answers("GetPrevSuccessfulDagRun")
    def get_prev_successful_dag_run(self, msg: Any) -> Any:  # noqa: ARG002
        """Answer with the times of the last run that succeeded."""
        found = self.request("previous_success") or {}
        tick = found.get("tick")
        start, end = (None, None) if tick is None else self.interval_of(tick)
        return messages.PrevSuccessfulDagRunResult(
            data_interval_start=start,
            data_interval_end=end,
            start_date=found.get("start_date"),
            end_date=None,
        )

    @answers("GetTaskRescheduleStartDate")
    def get_task_reschedule_start_date(self, msg: Any) -> Any:  # noqa: ARG002
        """Answer with the start of the first look of a sensor."""
        return messages.TaskRescheduleStartDate(start_date=self.first_look)

    @answers("TriggerDagRun")
    def trigger_dag_run(self, msg: Any) -> Any:
        """Start a run of another DAG; one of that id is cleared, or named as there already."""
        there = self.find_run(msg)
        if there is not None and msg.reset_dag_run:
            # With its own conf, as in Airflow.
            self.fact("clear_run", run_id=there["run_id"], clear_number=there["clear_number"])
            return OK
        if there is not None:
            return absent(ErrorType.DAGRUN_ALREADY_EXISTS, dag_id=msg.dag_id, run_id=msg.run_id)
        later = getattr(msg, "run_after", None)
        if later is not None and later > datetime.now(UTC) + _SOON:
            raise UnsupportedError(
                "run_after, a run that is to start later,",
                "give the moment as logical_date: the tasks of the run wait for it",
            )
        self.request(
            "start_run",
            dag_id=msg.dag_id,
            run_key=msg.run_id,
            logical_time=msg.logical_date,
            conf=msg.conf or {},
            partition=getattr(msg, "partition_key", None),
        )
        return OK
