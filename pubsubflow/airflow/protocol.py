"""The protocol between our processes and those in the interpreter that has Airflow.

A client connects to the socket of a bundle's host, sends one byte with a file descriptor for
output, and then a `ClientRequest`. From then on frames go both ways: `Question`s are answered by
`Answer`s, and the last frame is a `LoadedStructure`, an `AttemptReport` or a `TriggerEnd`.
"""

from datetime import datetime
from typing import Any, Literal

import msgspec
from msgspec import Struct

from pubsubflow.airflow.structure import DagStructure, LoadedStructure

RUN_TYPES = {"cron": "scheduled", "dataset": "asset_triggered", "backfill": "backfill"}
"""Kind of a run → Airflow's type of it; `manual` for all others."""

HOSTS = "PSF_AIRFLOW_HOSTS"
"""The environment variable with the folder of the hosts' sockets."""


class BridgeSettings(Struct, frozen=True):
    """The settings of a bundle's host.

    Attributes:
        socket: The path at which it listens.
        parent: Pid of the process that it ends with.
        attempts: How many attempts of one file run at once.
        files: How many files are kept imported.
        ahead: How many processes of each of these files wait for an attempt.
        reuse: Whether the process of an attempt runs further ones.
    """

    socket: str
    parent: int
    attempts: int = 32
    files: int = 16
    ahead: int = 1
    reuse: bool = False


class ClientRequest(Struct, frozen=True, omit_defaults=True):
    """The first frame of a client.

    Attributes:
        folder: The folder of the bundle on disk.
        root: The folder that users know it by.
        file: The DAG file, relative to the folder.
        legacy: Whether names and keywords of older versions are replaced.
        variables: What the import may use: name → its value, in a tuple that is empty for one that
            is not set.
        payload: An `AirflowOrder` or a `TriggerOrder`, encoded.
    """

    operation: Literal["load", "attempt", "trigger"]
    folder: str
    root: str
    file: str
    legacy: bool = True
    variables: dict[str, tuple[Any, ...]] = {}
    payload: bytes = b""


class TriggeringEvent(Struct, frozen=True, omit_defaults=True):
    """An event that the run consumed; `alias` is empty unless it came through one."""

    name: str
    uri: str
    extra: dict[str, Any]
    time: datetime
    run_id: str | None = None
    dag_id: str | None = None
    task_id: str | None = None
    partition: str | None = None
    alias: str = ""


class AirflowOrder(Struct, frozen=True, omit_defaults=True):
    """One attempt of a task.

    Attributes:
        run_type: As in Airflow: `scheduled`, `manual`, `asset_triggered`, `backfill`.
        tick: Of a run by time.
        run_after: When the run was made, for one without a tick.
        moment: The resumption's value, of a wait for time; of an answer, when it came.
        answer: The resumption's value, of a wait for people.
        callback: What of the DAG is called, in place of the task: `on_success` or `on_failure`.
        reason: Why, in one line.
        map_index: -1 for a task that is not mapped.
        looks: How often it was rescheduled; `first_look` is when it began.
        ended_run: The resumption's value, of a wait for a run: what it waited for, and its state.
    """

    dag_id: str
    task_id: str
    run_id: str
    run_type: str
    run_after: datetime
    started_at: datetime
    attempt: int
    max_tries: int
    ti_id: str
    tick: datetime | None = None
    conf: dict[str, Any] = {}
    partition: str | None = None
    events: tuple[TriggeringEvent, ...] = ()
    map_index: int = -1
    next_method: str | None = None
    next_kwargs: dict[str, Any] | None = None
    moment: datetime | None = None
    looks: int = 0
    first_look: datetime | None = None
    pushed: dict[str, Any] = {}
    answer: dict[str, Any] | None = None
    callback: str = ""
    reason: str = ""
    ended_run: "RunEnding | None" = None


class RunEnding(Struct, frozen=True, omit_defaults=True):
    """The end of a run that a task waited for by a trigger of Airflow's.

    Attributes:
        run_id: The run, as the task names it.
        state: As Airflow names it.
    """

    classpath: str
    kwargs: dict[str, Any]
    run_id: str
    state: str


class Question(Struct, frozen=True, tag="question"):
    """A question of an attempt, an import or a trigger."""

    number: int
    name: str
    arguments: dict[str, Any] = {}


class Answer(Struct, frozen=True, omit_defaults=True):
    """The answer to a question; `error` is one line when there is none."""

    number: int
    value: Any = None
    error: str | None = None


class EmittedAsset(Struct, frozen=True, omit_defaults=True):
    """An event of an outlet.

    Attributes:
        alias: The alias through which it came, for an asset that is not an outlet.
    """

    name: str
    uri: str
    extra: dict[str, Any] = {}
    partition: str | None = None
    alias: str = ""


class HumanQuestion(Struct, frozen=True, omit_defaults=True):
    """A question to people.

    Attributes:
        options: What may be answered, several of them if `multiple`.
        defaults: The options that count when the time is over without an answer.
        params: Name → what is to be filled in, as Airflow serialises a param.
        people: Names of those who may answer; empty for all who may answer any.
    """

    subject: str
    options: tuple[str, ...]
    body: str | None = None
    defaults: tuple[str, ...] = ()
    multiple: bool = False
    params: dict[str, Any] = {}
    people: tuple[str, ...] = ()


class Deferral(Struct, frozen=True, omit_defaults=True):
    """A wait in the middle of a task.

    Attributes:
        until: The end of a wait for time alone, seconds since 1970.
        ends: Whether the task has succeeded when that time has come.
        expires: Whether the timeout is over then, before what it waits for.
        reschedule: Whether the task begins anew then.
        question: What it waits for is an answer of people.
        run: What it waits for is the end of a run: its DAG, and its id or key.
    """

    classpath: str = ""
    kwargs: dict[str, Any] = {}
    timeout: float | None = None
    next_method: str | None = None
    next_kwargs: dict[str, Any] | None = None
    until: float | None = None
    ends: bool = False
    expires: bool = False
    reschedule: bool = False
    question: HumanQuestion | None = None
    run: tuple[str, str] | None = None


class AttemptReport(Struct, frozen=True, omit_defaults=True, tag="end"):
    """The end of an attempt.

    Attributes:
        state: `success`, `failed`, `retry`, `skipped` or `waiting`.
        value: What it returned, as Airflow serialises it.
        pushed: What it has left under other keys.
        skipped: Task ids that are skipped after it; None when it does not say.
        length: How many elements a task that is mapped over its value finds.
        rendered: Its template fields, for people.
        retry_after: Seconds, where the attempt says so.
    """

    state: str
    value: Any = None
    pushed: dict[str, Any] = {}
    skipped: tuple[str, ...] | None = None
    rendered: dict[str, str] = {}
    map_name: str = ""
    emitted: tuple[EmittedAsset, ...] = ()
    deferral: Deferral | None = None
    retry_after: float | None = None
    error_type: str = ""
    error_message: str = ""
    error_traceback: str = ""
    length: int | None = None


class TriggerOrder(Struct, frozen=True, omit_defaults=True):
    """A trigger of Airflow: its class, and its arguments as they are serialised.

    Attributes:
        watch: Whether all of its events are wanted, until the client is gone.
    """

    classpath: str
    kwargs: dict[str, Any] = {}
    task_id: str = ""
    dag_id: str = ""
    run_id: str = ""
    watch: bool = False


class TriggerEnd(Struct, frozen=True, omit_defaults=True, tag="fired"):
    """The first event of a trigger, or its failure.

    Attributes:
        payload: As Airflow serialises it.
        ends: The state in which the task ends with it; empty when it resumes.
        pushed: Of such an end: what is left under keys.
        error: One line, when it failed.
        traceback: The lines of its traceback then.
        plain: The payload as JSON has it, of a trigger that is watched.
        more: Whether it goes on.
    """

    payload: Any = None
    ends: str = ""
    pushed: dict[str, Any] = {}
    error: str | None = None
    traceback: tuple[str, ...] = ()
    plain: Any = None
    more: bool = False


FromInside = Question | AttemptReport | TriggerEnd | LoadedStructure


def encode(message: Any) -> bytes:
    """Return a message as MessagePack; what has no form there becomes its text."""
    return msgspec.msgpack.encode(message, enc_hook=str)


decode_request = msgspec.msgpack.Decoder(ClientRequest).decode
decode_order = msgspec.msgpack.Decoder(AirflowOrder).decode
decode_trigger_order = msgspec.msgpack.Decoder(TriggerOrder).decode
decode_settings = msgspec.msgpack.Decoder(BridgeSettings).decode
decode_structure = msgspec.msgpack.Decoder(DagStructure).decode
decode_answer = msgspec.msgpack.Decoder(Answer).decode
decode_from_inside = msgspec.msgpack.Decoder(FromInside).decode
