"""The supervisor's side of the task SDK: what an attempt sends is answered by our managers.

`send` is all that the SDK calls, `asend` from async code. A message is an object of
`airflow.sdk.execution_time.comms`, and so is its answer. Handlers are found by the
message that they declare.
"""

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar

from airflow.sdk.exceptions import ErrorType
from airflow.sdk.execution_time import comms as messages

from pubsubflow.airflow.inside.channel import Channel
from pubsubflow.airflow.protocol import HumanQuestion

RETURN_VALUE = "return_value"
_OK = messages.OKResponse(ok=True)
_ASKS = ("Get", "Create")
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


def absent(kind: ErrorType, **detail: Any) -> Any:
    """Return the answer for what does not exist."""
    return messages.ErrorResponse(error=kind, detail=detail)


class UnsupportedError(RuntimeError):
    """An attempt needs what is not there yet."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is not supported by pubsubflow yet: see the table in its docs")


Handler = Callable[[Any, Any], Any]


def answers(*names: str) -> Callable[[Handler], Handler]:
    """Declare the messages that a method answers."""

    def declare(function: Handler) -> Handler:
        function.messages = names  # type: ignore[attr-defined]
        return function

    return declare


def _handlers(kind: type) -> dict[str, str]:
    """Return message → name of the method that answers it."""
    found = {name: getattr(getattr(kind, name), "messages", ()) for name in dir(kind)}
    return {message: name for name, messages in found.items() for message in messages}


class ClientQuestions:
    """Answers any code inside: connections and variables.

    Args:
        channel: To the client; None when there is none, as in tests of a file alone.
    """

    _handlers: ClassVar[dict[str, str]] = {}

    def __init_subclass__(cls) -> None:
        cls._handlers = _handlers(cls)

    def __init__(self, channel: Channel | None) -> None:
        self._channel = channel
        self.socket = None  # main() of the SDK closes it, and there is none

    def send(self, msg: Any) -> Any:
        """Answer a message."""
        name = type(msg).__name__
        handler = self._handlers.get(name)
        if handler is not None:
            return getattr(self, handler)(msg)
        # A newer SDK tells more; what requests something must be known.
        if name.startswith(_ASKS):
            raise UnsupportedError(name)
        return _OK

    async def asend(self, msg: Any) -> Any:
        """Answer a message of async code."""
        return await asyncio.to_thread(self.send, msg)

    def request(self, question: str, **arguments: Any) -> Any:
        """Request it of the client; None without one."""
        return None if self._channel is None else self._channel.request(question, **arguments)

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
        return _OK

    @answers("PutVariable")
    def put_variable(self, msg: Any) -> Any:
        """Refuse to set a variable."""
        raise UnsupportedError(f"setting the variable {msg.key!r} from a task")

    @answers("DeleteVariable")
    def delete_variable(self, msg: Any) -> Any:
        """Refuse to remove a variable."""
        raise UnsupportedError(f"removing the variable {msg.key!r} from a task")


ClientQuestions._handlers = _handlers(ClientQuestions)  # noqa: SLF001 - as of its subclasses


class AttemptQuestions(ClientQuestions):
    """Answers one attempt, and keeps what it says of itself.

    Args:
        channel: To the client.
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
    """

    def __init__(self, channel: Channel, pushed: dict[str, Any] | None = None) -> None:
        super().__init__(channel)
        self.outcome: Any = None
        self.skipped: list[str] | None = None
        self.rendered: dict[str, Any] = {}
        self.map_name = ""
        self.pushed: dict[str, Any] = dict(pushed or {})
        self.address: tuple[str, str, str, int] = ("", "", "", -1)
        self.first_look: Any = None
        self.length: int | None = None
        self.question: HumanQuestion | None = None

    @answers(
        "SucceedTask", "TaskState", "DeferTask", "RetryTask", "RescheduleTask", "AwaitInputTask"
    )
    def keep_outcome(self, msg: Any) -> Any:
        """Keep how the attempt has ended."""
        self.outcome = msg
        return _OK

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
        return _OK

    @answers("SetRenderedFields")
    def set_rendered_fields(self, msg: Any) -> Any:
        """Keep the template fields."""
        self.rendered = dict(msg.rendered_fields)
        return _OK

    @answers("SetRenderedMapIndex")
    def set_rendered_map_index(self, msg: Any) -> Any:
        """Keep the name of the instance."""
        self.map_name = msg.rendered_map_index or ""
        return _OK

    @answers("ValidateInletsAndOutlets")
    def validate_inlets_and_outlets(self, msg: Any) -> Any:  # noqa: ARG002
        """Answer that all assets are in use."""
        return messages.InactiveAssetsResult(inactive_assets=[])

    @answers("SetXCom")
    def set_xcom(self, msg: Any) -> Any:
        """Keep a value for the end of the attempt."""
        if (msg.dag_id, msg.run_id, msg.task_id) != self.address[:3]:
            raise UnsupportedError("pushing an XCom for another task")
        self.pushed[msg.key] = msg.value
        if msg.key == RETURN_VALUE:
            self.length = msg.mapped_length
        return _OK

    @answers("DeleteXCom")
    def delete_xcom(self, msg: Any) -> Any:
        """Remove a value of this attempt."""
        self.pushed.pop(msg.key, None)
        return _OK

    @answers("GetXCom")
    def get_xcom(self, msg: Any) -> Any:
        """Answer with one value."""
        index = None if msg.map_index in (None, -1) else msg.map_index
        values = self._values(msg, index)
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
        """Answer with the values of some instances."""
        values = self._values(msg, None)
        return messages.XComSequenceSliceResult(root=values[msg.start : msg.stop : msg.step])

    @answers("GetTICount")
    def get_ti_count(self, msg: Any) -> Any:
        """Answer how many instances tasks of this run have."""
        if (msg.dag_id, msg.run_ids) != (self.address[0], [self.address[1]]) or not msg.task_ids:
            raise UnsupportedError("counting tasks of other runs (GetTICount)")
        return messages.TICount(count=sum(map(self._instances, msg.task_ids)))

    def _instances(self, task_id: str) -> int:
        if task_id == self.address[2]:
            # The SDK relates map indexes of one group by it: any number above its own will do.
            return max(self.address[3] + 1, 1)
        dag_id, run_id = self.address[:2]
        found = self.request(
            "xcom", dag_id=dag_id, run_id=run_id, task_id=task_id, key=RETURN_VALUE, map_index=None
        )
        return len(found)

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

    @answers("GetAssetByName", "GetAssetByUri")
    def get_asset(self, msg: Any) -> Any:
        """Answer with an asset."""
        by_name = type(msg).__name__ == "GetAssetByName"
        wanted = {"name": msg.name} if by_name else {"uri": msg.uri}
        return messages.AssetResult(**self.request("asset", **wanted), group="asset", extra={})

    @answers("GetPrevSuccessfulDagRun")
    def get_prev_successful_dag_run(self, msg: Any) -> Any:  # noqa: ARG002
        """Answer with the times of the last run that succeeded."""
        found = self.request("previous_success") or {}
        names = ("data_interval_start", "data_interval_end", "start_date", "end_date")
        return messages.PrevSuccessfulDagRunResult(**{name: found.get(name) for name in names})

    @answers("GetTaskRescheduleStartDate")
    def get_task_reschedule_start_date(self, msg: Any) -> Any:  # noqa: ARG002
        """Answer with the start of the first look of a sensor."""
        return messages.TaskRescheduleStartDate(start_date=self.first_look)

    @answers("GetTaskBreadcrumbs")
    def get_task_breadcrumbs(self, msg: Any) -> Any:  # noqa: ARG002
        """Answer that there are none."""
        return messages.TaskBreadcrumbsResult(breadcrumbs=[])

    @answers("TriggerDagRun")
    def trigger_dag_run(self, msg: Any) -> Any:
        """Start a run of another DAG."""
        self.request(
            "start_run",
            dag_id=msg.dag_id,
            run_key=msg.run_id,
            logical_time=msg.logical_date,
            conf=msg.conf or {},
        )
        return _OK
