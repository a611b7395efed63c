"""DAGs are defined by a context manager, `DAG`, or by a decorator, `@dag`."""

import inspect
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime, tzinfo
from functools import partial
from types import TracebackType
from typing import Any, Self, Unpack, overload
from zoneinfo import ZoneInfo

from msgspec.structs import replace

from pubsubflow.authoring.alerts.callbacks import DAG_CALLBACKS, TASK_CALLBACKS, callback_names
from pubsubflow.authoring.alerts.deadlines import Deadline
from pubsubflow.authoring.dag_options import DAG_CHECKS, DagKeywords, with_default_args
from pubsubflow.authoring.params import check_computed, declare_computed, declare_params
from pubsubflow.authoring.params_mapping import Arguments, DeclaredParams, function_arguments
from pubsubflow.authoring.registry import collect_dag
from pubsubflow.authoring.runtime.inprocess import InProcessRuns
from pubsubflow.authoring.schedules.own_timetables import own_timetables, with_ticks
from pubsubflow.authoring.schedules.timetables import is_continuous, written_schedule
from pubsubflow.authoring.source_location import (
    caller,
    dag_in_errors,
    definition_error,
    module_file,
)
from pubsubflow.authoring.tasks.airflow_words import DAG_WORDS
from pubsubflow.authoring.tasks.graph import (
    Graph,
    Node,
    Reference,
    close_graph,
    open_graph,
)
from pubsubflow.authoring.tasks.limits import limit_fields
from pubsubflow.authoring.tasks.mapped.group_mapping import (
    ExpandInput,
    JoinedElements,
    check_branches,
)
from pubsubflow.authoring.tasks.options import check_id, check_keywords
from pubsubflow.authoring.tasks.param_reference import ParamReference
from pubsubflow.authoring.tasks.polling import PollBody
from pubsubflow.model.schedule.conditions import ScheduleSpec, inputs, ticks
from pubsubflow.model.schedule.timetable import CronSpec
from pubsubflow.model.source.elements import digest_elements
from pubsubflow.model.spec import DagSpec, MappedArgument, TaskSpec
from pubsubflow.model.wire.executor_spec import executor_queue


class DAG(Graph, InProcessRuns):
    """Tasks, their order, and the schedule of their runs.

    Tasks made inside `with DAG(…):` belong to it.

    Args:
        dag_id: Letters, digits, `_`, `-` and `.`, at most 250; unique.
        options: `schedule`: datasets, times, text or None; `start`, `end`: bounds of the ticks,
            without a zone they are in that of the Cron, else UTC; `catchup`: whether missed
            ticks get runs as well; `params`: a mapping of defaults or a `msgspec.Struct` type;
            `params_from`: param → CEL over the consumed `events`, the last `event` and the
            `partition`, evaluated before the run exists; `subscribe_from`: `now`, `earliest`, the
            id of an event or a datetime, from which a new subscription takes events;
            `default_args`: task options; `max_active_runs`: 16; `max_active_tasks`;
            `priority`: added to that of each of its tasks; `timeout` of a run; `tags`; `owner`;
            `description`; `on_success`, `on_failure`: functions of a context,
            notifiers, or lists of these;
            `deadlines`: a list of `Deadline(…)`;
            `on_pause`: `hold` keeps the events that arrive while paused, `drop` drops them;
            `retention`: how long its runs are kept after their end, or a `Retention`;
            `result`: the id of the task whose result answers calls of the DAG.
            `presets`: name → params that people may start a run with by that name.

    Attributes:
        hints: What of `default_args` has no meaning here, a line each.
        by_instance: See `DagSpec`; likewise `interval_dates` and `fail_fast`.

    Raises:
        DefinitionError: An option is invalid; the message names it and its location.
    """

    id_prefix = ""
    by_instance = False
    interval_dates = False
    fail_fast = False

    def __init__(
        self, dag_id: str, *, arguments: Arguments | None = None, **options: Unpack[DagKeywords]
    ) -> None:
        self._arguments = arguments or Arguments()
        self.location = caller()
        self.module_file = module_file()
        # The id comes first, so that errors in the options name the DAG.
        checked_id = self.id_prefix + check_id(dag_id, "dag_id")
        with dag_in_errors(checked_id):
            options, self.hints = with_default_args(options)
            given = check_keywords(options, DAG_CHECKS, "", words=DAG_WORDS)
            defaults = given.get("default_args") or {}
            if given.get("executor") is not None:
                defaults = {"executor": given["executor"], **defaults}
            super().__init__(checked_id, defaults)
            self._options = given
            schedule = options.get("schedule")
            written = None if schedule is None else written_schedule(schedule)
            self.schedule = None if written is None else written.compiled()
            if is_continuous(schedule) and given.setdefault("max_active_runs", 1) > 1:
                raise definition_error(
                    f"max_active_runs={given['max_active_runs']}: with '@continuous' a run begins "
                    "when the one before has ended; leave max_active_runs out"
                )
            condition = None if self.schedule is None else self.schedule.condition
            self._timetables = [] if condition is None else list(ticks(condition))
            self.own_timetables = own_timetables(written, self._timetables)
            self.params, self.params_from = self._declared()
            self.subscribe_from: str = given.get("subscribe_from", "now")
            self.start = self._moment("start")
            self.end = self._moment("end")
        self.on_success: tuple[Callable[..., object], ...] = given.get("on_success", ())
        self.deadlines: tuple[Deadline, ...] = given.get("deadlines", ())
        self.on_failure: tuple[Callable[..., object], ...] = given.get("on_failure", ())
        collect_dag(checked_id, self, self.location)

    def _declared(self) -> tuple[DeclaredParams, dict[str, str]]:
        computed = declare_computed(self._options.get("params_from"))
        # A timetable starts runs without events: those need defaults for computed params too.
        declared = declare_params(
            self._options.get("params"),
            scheduled=self.schedule is not None,
            computed=() if self._timetables else computed,
            arguments=self._arguments,
        )
        datasets = self.schedule is not None and any(inputs(self.schedule.condition))
        check_computed(computed, declared, datasets=datasets)
        if self._options.get("subscribe_from", "now") != "now" and not datasets:
            raise definition_error("subscribe_from: the schedule holds no dataset to subscribe to")
        return declared, computed

    def _moment(self, name: str) -> datetime | None:
        moment: datetime | None = self._options.get(name)
        if moment is None or moment.tzinfo is not None:
            return moment
        return moment.replace(tzinfo=self._zone(name))

    def _zone(self, name: str) -> tzinfo:
        """Return the zone of the timetables."""
        tables = [part.timetable for part in self._timetables]
        zones = {table.tz for table in tables if isinstance(table, CronSpec)}
        if len(zones) > 1:
            raise definition_error(
                f"{name} needs a zone of its own: the Crons have {', '.join(sorted(zones))}"
            )
        return ZoneInfo(zones.pop()) if zones else UTC

    @property
    def described(self) -> tuple[str, tuple[str, ...], str | None, str | None]:
        """Its id, tags, description and owner."""
        given = self._options
        return self.dag_id, given.get("tags", ()), given.get("description"), given.get("owner")

    def _check_presets(self) -> None:
        # Not before: `@dag` may get defaults of further params when it is called.
        for name, params in (self._options.get("presets") or {}).items():
            unknown = sorted(params.keys() - set(self.params.attributes))
            if unknown:
                with dag_in_errors(self.dag_id):
                    raise definition_error(
                        f"presets: {name!r} sets {unknown[0]!r}, which is not a param of the DAG"
                    )

    def __enter__(self) -> Self:
        open_graph(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        close_graph()
        # After an exception in the block, a cycle of the incomplete graph would hide it.
        if error is None:
            self.ordered()

    def __call__(self, *args: Any, **kwargs: Any) -> Self:
        """Return the DAG itself: `@dag` has built it already.

        Args:
            args: Defaults of its params, in the order of the function's arguments.
            kwargs: Likewise, by name.

        Raises:
            DefinitionError: The function lacks such an argument, or a value does not fit.
        """
        if args or kwargs:
            self._arguments = self._arguments.with_defaults(args, kwargs)
            with dag_in_errors(self.dag_id):
                self.params, self.params_from = self._declared()
        return self

    def __repr__(self) -> str:
        return f"<DAG {self.dag_id}>"

    def with_ticks(self, spec: DagSpec, now: datetime) -> DagSpec:
        """Return its serialised form with the ticks of its own timetables, as of now.

        Raises:
            DefinitionError: A timetable gives something else than rising moments, or too many.
            TimetableFailed: It raises an error.
        """
        return replace(spec, schedule=self.schedule_at(now)) if self.own_timetables else spec

    def schedule_at(self, now: datetime) -> ScheduleSpec | None:
        """Return the schedule with the ticks of its own timetables, as of now.

        Raises:
            DefinitionError: As `with_ticks`.
            TimetableFailed: As `with_ticks`.
        """
        if self.schedule is None or not self.own_timetables:
            return self.schedule
        catchup = bool(self._options.get("catchup"))
        with dag_in_errors(self.dag_id):
            return with_ticks(
                self.schedule, self.own_timetables, now, start=self.start, catchup=catchup
            )

    def _result_task(self) -> str | None:
        """Return the id of the task whose result answers calls."""
        task_id: str | None = self._options.get("result")
        if task_id is None or any(node.task_id == task_id for node in self.ordered()):
            return task_id
        with dag_in_errors(self.dag_id):
            raise definition_error(
                f"result={task_id!r} names no task of this DAG: write the id of one",
                location=self.location,
            )

    def to_spec(self, file: str, source: str) -> DagSpec:
        """Return the serialised form.

        Args:
            file: Path of the DAG file relative to the DAGs folder.
            source: Content hash of the code.

        Raises:
            DefinitionError: The tasks form a cycle, `result` names none of them, or a branch leads
                out of a mapped group.
        """
        nodes = self.ordered()
        self._check_presets()
        if not self.by_instance:
            check_branches(nodes)
        positions = {node: position for position, node in enumerate(nodes)}
        given, params = self._options, self.params.attributes
        return DagSpec(
            dag_id=self.dag_id,
            file=file,
            source=source,
            tasks=tuple(_task_spec(node, positions, file, params) for node in nodes),
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
            retention=given.get("retention"),
            priority=given.get("priority", 0),
            result=self._result_task(),
            callbacks=callback_names(given.get, DAG_CALLBACKS),
            presets=given.get("presets") or {},
            deadlines=tuple(each.to_spec() for each in self.deadlines),
            by_instance=self.by_instance,
            interval_dates=self.interval_dates,
            fail_fast=self.fail_fast,
            line=self.location.line
            if self.location and self.location.file.endswith(file)
            else None,
        )


@overload
def dag(dag_id: Callable[..., object], /) -> DAG: ...


@overload
def dag(
    dag_id: str | None = None, **options: Unpack[DagKeywords]
) -> Callable[[Callable[..., object]], DAG]: ...


def dag(dag_id: Any = None, **options: Any) -> Any:
    """Build a DAG from a function that makes its tasks, at once.

    The arguments of the function are params, with their defaults and types; inside it each one is a
    reference that tasks take as an argument, and that stands for its template in a text.

    Args:
        dag_id: Its id; the function's name when left out.
        options: The keywords of DAG.

    Raises:
        DefinitionError: An option is invalid.
    """
    if callable(dag_id):
        return _build(dag_id, None, options)
    return lambda body: _build(body, dag_id, options)


def _build(body: Callable[..., object], dag_id: str | None, options: Any) -> DAG:
    if not callable(body):
        raise definition_error(f"@dag goes above a function, not {body!r}")
    description = (inspect.getdoc(body) or "").partition("\n")[0]
    if description:
        options = {"description": description} | options
    arguments = function_arguments(body)
    made = DAG(dag_id if dag_id is not None else body.__name__, arguments=arguments, **options)
    with made:
        body(
            **{
                name: ParamReference(name, arguments.kinds.get(name, Any))
                for name in arguments.given
            }
        )
    return made


def _task_spec(
    node: Node, positions: Mapping[Node, int], file: str, params: Collection[str]
) -> TaskSpec:
    """Return the serialised form of a node.

    Args:
        node: The node.
        positions: Every node of the DAG → its position in topological order.
        file: Path of the DAG file relative to the DAGs folder.
        params: Names of the DAG's params, as templates know them.
    """
    options = node.options
    return TaskSpec(
        node=positions[node],
        task_id=node.task_id,
        kind=node.body.kind,
        role=node.role,
        upstream=tuple(sorted(positions[before] for before in node.upstream)),
        inputs=tuple(sorted(positions[before] for before in node.inputs)),
        mapped_arguments=tuple(
            _mapped_argument(each, positions, node) for each in node.mapped_over
        ),
        map_group="" if node.mapping is None else node.mapping.name,
        trigger_rule=options.trigger_rule,
        retry=options.retry,
        timeout_seconds=None if node.body.starts_with_wait else options.timeout,
        outlets=options.outlets.uris,
        outlet_patterns=options.outlets.patterns,
        inlets=options.inlets,
        queue=executor_queue(options.queue, options.executor),
        executor=options.executor,
        operator=node.body.operator,
        doc=options.doc,
        line=node.location.line if node.location and node.location.file.endswith(file) else None,
        start_wait=node.body.start_wait(options.timeout),
        groups=node.groups,
        fails_run=node.role == "teardown" and node.fails_run,
        depends_on_past=options.depends_on_past or options.wait_for_downstream,
        wait_for_downstream=options.wait_for_downstream,
        poll=node.body.poll if isinstance(node.body, PollBody) else None,
        **limit_fields(options, params, node.task_id, node.location),
        resources=options.resources,
        callbacks=callback_names(partial(getattr, options), TASK_CALLBACKS),
    )


def _mapped_argument(
    given: ExpandInput, positions: Mapping[Node, int], node: Node
) -> MappedArgument:
    needed = given.name in node.used_elements or node.options.map_index_template is not None
    unused = given.counted or (node.mapping is not None and not needed)
    if isinstance(given.values, JoinedElements):
        parts = tuple(_mapped_argument(part, positions, node) for part in given.values.parts)
        return MappedArgument(given.name, unused=unused, joined=given.values.kind, parts=parts)
    if isinstance(given.values, Reference):
        return MappedArgument(given.name, node=positions[given.values.node], unused=unused)
    elements = digest_elements(given.values)
    return MappedArgument(given.name, length=len(given.values), elements=elements, unused=unused)
