"""DAGs: as a context manager, and as a decorator that builds where it stands."""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, tzinfo
from types import TracebackType
from typing import Any, Self, TypedDict, Unpack, overload
from zoneinfo import ZoneInfo

from msgspec import Struct

from pubsubflow.authoring.graph import Graph, enter, leave
from pubsubflow.authoring.loading.registry import collect_dag
from pubsubflow.authoring.options import check_defaults, check_id, check_keywords
from pubsubflow.authoring.params import (
    Declared,
    check_computed,
    declare,
    declare_computed,
)
from pubsubflow.authoring.runtime.context import DatasetEvent
from pubsubflow.authoring.runtime.inprocess import InProcess
from pubsubflow.authoring.schedules.expressions import as_schedule
from pubsubflow.authoring.serialize import task_spec
from pubsubflow.authoring.source_location import caller, mistake, module_file, naming_dag
from pubsubflow.authoring.validation import (
    Seconds,
    function,
    optional,
    positive_seconds,
    text,
    whole,
)
from pubsubflow.model.schedule.conditions import inputs, ticks
from pubsubflow.model.schedule.timetable import Cron
from pubsubflow.model.spec import DagSpec

_EVENT_ID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


class DagKeywords(TypedDict, total=False):
    """What `DAG(…)` and `@dag(…)` understand besides the id."""

    schedule: Any
    start: datetime | None
    end: datetime | None
    catchup: bool
    params: Mapping[str, Any] | type[Struct] | None
    params_from: Mapping[str, str] | None
    subscribe_from: str | datetime | DatasetEvent
    default_args: Mapping[str, Any] | None
    max_active_runs: int
    max_active_tasks: int | None
    timeout: Seconds | None
    tags: Iterable[str]
    owner: str | None
    description: str | None
    on_success: Callable[..., object] | None
    on_failure: Callable[..., object] | None
    on_pause: str


class DAG(Graph, InProcess):
    """Tasks, their order, and when to run them.

    Tasks made inside `with DAG(…):` belong to it.

    Args:
        dag_id: Letters, digits, `_`, `-` and `.`, at most 250; unique.
        options: `schedule`: datasets, Cron, Every or None; `start`, `end`: bounds of the ticks,
            without a zone they are in that of the Cron, else UTC; `catchup`: whether ticks
            missed are made up for; `params`: a mapping of defaults or a `msgspec.Struct` type;
            `params_from`: param → CEL over the consumed `events`, the last `event` and the
            `partition`, evaluated before the run exists; `subscribe_from`: `now`, `earliest`, the
            id of an event or a datetime, from where on a new subscription takes events;
            `default_args`: task options; `max_active_runs`: 16; `max_active_tasks`; `timeout`
            of a run; `tags`; `owner`; `description`; `on_success`, `on_failure`: functions;
            `on_pause`: `hold` keeps the events that arrive while paused, `drop` does not.

    Raises:
        DefinitionError: Something about it cannot be; the message names it and its place.
    """

    def __init__(self, dag_id: str, **options: Unpack[DagKeywords]) -> None:
        self.place = caller()
        self.module_file = module_file()
        checked_id = check_id(dag_id, "dag_id")
        with naming_dag(checked_id):
            given = check_keywords(options, _CHECKS, "DAG")
            super().__init__(checked_id, given.get("default_args") or {})
            self._options = given
            schedule = options.get("schedule")
            self.schedule = None if schedule is None else as_schedule(schedule).compiled()
            condition = None if self.schedule is None else self.schedule.condition
            self._timetables = [] if condition is None else list(ticks(condition))
            self.params, self.params_from = self._declared()
            self.subscribe_from: str = given.get("subscribe_from", "now")
            self.start = self._moment("start")
            self.end = self._moment("end")
        self.on_success: Callable[..., object] | None = given.get("on_success")
        self.on_failure: Callable[..., object] | None = given.get("on_failure")
        collect_dag(checked_id, self, self.place)

    def _declared(self) -> tuple[Declared, dict[str, str]]:
        computed = declare_computed(self._options.get("params_from"))
        declared = declare(
            self._options.get("params"),
            scheduled=self.schedule is not None,
            computed=() if self._timetables else computed,
        )
        places = () if self.schedule is None else inputs(self.schedule.condition)
        datasets = any(True for _ in places)
        check_computed(computed, declared, datasets=datasets)
        if self._options.get("subscribe_from", "now") != "now" and not datasets:
            raise mistake("subscribe_from: no dataset stands in the schedule to subscribe to")
        return declared, computed

    def _moment(self, name: str) -> datetime | None:
        moment: datetime | None = self._options.get(name)
        if moment is None or moment.tzinfo is not None:
            return moment
        return moment.replace(tzinfo=self._zone(name))

    def _zone(self, name: str) -> tzinfo:
        """Return the zone of the timetables."""
        tables = [part.timetable for part in self._timetables]
        zones = {table.tz for table in tables if isinstance(table, Cron)}
        if len(zones) > 1:
            raise mistake(
                f"{name} needs a zone of its own: the Crons have {', '.join(sorted(zones))}"
            )
        return ZoneInfo(zones.pop()) if zones else UTC

    def __enter__(self) -> Self:
        enter(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        leave()
        if error is None:
            self.ordered()

    def __call__(self) -> Self:
        """Return the DAG itself: `@dag` has built it already."""
        return self

    def __repr__(self) -> str:
        return f"<DAG {self.dag_id}>"

    def to_spec(self, file: str, source: str) -> DagSpec:
        """Return the serialised form.

        Args:
            file: Path of the DAG file relative to the DAGs folder.
            source: Content hash of the code.

        Raises:
            DefinitionError: The tasks wait for each other in a circle.
        """
        nodes = self.ordered()
        numbers = {node: number for number, node in enumerate(nodes)}
        given = self._options
        return DagSpec(
            dag_id=self.dag_id,
            file=file,
            source=source,
            tasks=tuple(task_spec(node, numbers, file) for node in nodes),
            schedule=self.schedule,
            subscribe_from=self.subscribe_from,
            start=self.start,
            end=self.end,
            catchup=given.get("catchup", False),
            params=self.params.defaults,
            params_schema=self.params.schema,
            params_from=self.params_from,
            max_active_runs=given.get("max_active_runs", 16),
            max_active_tasks=given.get("max_active_tasks"),
            timeout_seconds=given.get("timeout"),
            tags=given.get("tags", ()),
            owner=given.get("owner"),
            description=given.get("description"),
            on_pause=given.get("on_pause", "hold"),
            line=self.place.line if self.place and self.place.file.endswith(file) else None,
        )


@overload
def dag(dag_id: Callable[[], object], /) -> DAG: ...


@overload
def dag(
    dag_id: str | None = None, **options: Unpack[DagKeywords]
) -> Callable[[Callable[[], object]], DAG]: ...


def dag(dag_id: Any = None, **options: Any) -> Any:
    """Build a DAG from a function that makes its tasks, at once.

    Args:
        dag_id: Its id; the function's name when left out.
        options: What DAG understands.

    Raises:
        DefinitionError: Something about it cannot be.
    """
    if callable(dag_id):
        return _build(dag_id, None, options)
    return lambda body: _build(body, dag_id, options)


def _build(body: Callable[[], object], dag_id: str | None, options: Any) -> DAG:
    if not callable(body):
        raise mistake(f"@dag goes above a function, not {body!r}")
    name = dag_id if dag_id is not None else body.__name__
    for parameter in inspect.signature(body).parameters.values():
        if parameter.default is parameter.empty and parameter.kind not in (
            parameter.VAR_KEYWORD,
            parameter.VAR_POSITIONAL,
        ):
            raise mistake(
                f"an @dag function is called without arguments, but {parameter.name!r} has no "
                "default; what changes from run to run goes into params=",
                dag_id=name,
            )
    description = (inspect.getdoc(body) or "").partition("\n")[0]
    if description:
        options = {"description": description} | options
    made = DAG(name, **options)
    with made:
        body()
    return made


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError("must be True or False")
    return value


def _when(value: object) -> datetime:
    if not isinstance(value, datetime):
        raise TypeError("must be a datetime")
    return value


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple | set | frozenset):
        raise TypeError("must be a list of texts")
    return tuple(map(text, sorted(value) if isinstance(value, set | frozenset) else value))


def _origin(value: object) -> str:
    """Return from where on a subscription takes events."""
    if isinstance(value, DatasetEvent):
        value = value.event_id
    if isinstance(value, datetime):
        moment = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
        return moment.astimezone(UTC).isoformat()
    if value in ("now", "earliest"):
        return str(value)
    if isinstance(value, str):
        found = re.fullmatch(_EVENT_ID, value.lower())
        if found is not None:
            return found[0]
    raise ValueError("must be 'now', 'earliest', the id of an event, or a datetime")


def _on_pause(value: object) -> str:
    if value not in ("hold", "drop"):
        raise ValueError("must be 'hold' or 'drop'")
    return str(value)


_CHECKS: dict[str, Callable[[object], Any]] = {
    "schedule": lambda value: value,
    "start": optional(_when),
    "end": optional(_when),
    "catchup": _flag,
    "params": lambda value: value,
    "params_from": lambda value: value,
    "subscribe_from": _origin,
    "default_args": check_defaults,
    "max_active_runs": whole(1),
    "max_active_tasks": optional(whole(1)),
    "timeout": optional(positive_seconds),
    "tags": _texts,
    "owner": optional(text),
    "description": optional(text),
    "on_success": optional(function),
    "on_failure": optional(function),
    "on_pause": _on_pause,
}
