"""The `@task` decorator: functions become tasks when they are called inside a DAG."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Unpack, overload

from pubsubflow.authoring.runtime.signatures import FunctionSignature, is_async, is_generator
from pubsubflow.authoring.source_location import definition_error, suggestion
from pubsubflow.authoring.tasks.airflow_words import TASK_WORDS, replacements
from pubsubflow.authoring.tasks.body import FunctionBody
from pubsubflow.authoring.tasks.graph import Chainable, Reference, Role, new_node
from pubsubflow.authoring.tasks.mapped.group_mapping import ExpandInput
from pubsubflow.authoring.tasks.mapped.map_expressions import MapExpression
from pubsubflow.authoring.tasks.mapped.mapping import expand_inputs, expand_kwargs_input
from pubsubflow.authoring.tasks.options import TaskKeywords, check_id, check_options
from pubsubflow.authoring.tasks.polling import POLL_KEYWORDS, PollBody, poll_spec
from pubsubflow.authoring.tasks.sensors import SensorBody, SensorSignature, sensor_signature
from pubsubflow.authoring.tasks.wait_target import WaitTarget
from pubsubflow.authoring.validation import Seconds


class TaskFunction:
    """A function declared with `@task`; each call inside a DAG adds one task.

    Attributes:
        function: The plain function, to call it without a DAG.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        given: Mapping[str, Any],
        *,
        role: Role = "task",
        operator: str = "task",
        target: WaitTarget | None = None,
        poll: Mapping[str, Any] | None = None,
    ) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.role = role
        self.operator = operator
        self._given = dict(given)
        self._target = target
        self._poll = poll
        options = self._given.copy()
        self.task_id = check_id(
            options.pop("task_id", getattr(function, "__name__", "")), "task_id"
        )
        self._dag = options.pop("dag", None)
        if role == "teardown":
            # A teardown must run after failures as well.
            options.setdefault("trigger_rule", "all_done_setup_success")
        self._options = check_options(options, "@task", task_id=self.task_id)
        if "doc" not in self._options and (doc := inspect.getdoc(function)):
            self._options = self._options | {"doc": doc}
        self._check_function()
        self._signature = FunctionSignature(function)
        self._poll_spec = None if poll is None else poll_spec(poll, self.task_id)
        if target is not None:
            self._signature = sensor_signature(function, target, self.task_id)

    def _check_function(self) -> None:
        if is_generator(self.function):
            raise definition_error("a task cannot `yield`; return a list", task_id=self.task_id)
        if self.operator == "bash" and is_async(self.function):
            raise definition_error("@task.bash takes a plain `def`", task_id=self.task_id)

    def override(self, **options: Unpack[TaskKeywords]) -> "TaskFunction":
        """Return the same task with other options."""
        return self._changed(self._given | options, self.role)

    def as_role(self, role: Role) -> "TaskFunction":
        """Return the same task in another role of the run."""
        return self._changed(self._given, role)

    def _changed(self, given: Mapping[str, Any], role: Role) -> "TaskFunction":
        return TaskFunction(
            self.function,
            given,
            role=role,
            operator=self.operator,
            target=self._target,
            poll=self._poll,
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Add a task to the open DAG and return the reference to its result.

        Raises:
            DefinitionError: No DAG is open, or the arguments do not fit the function.
        """
        self.check_arguments([*args, *kwargs.values()])
        self.check_call(args, kwargs)
        return self.add(args, kwargs, ())

    def partial(self, **kwargs: Any) -> "PartialTask":
        """Fix some arguments of a task that is then mapped with `expand`."""
        return PartialTask(self, kwargs)

    def expand(self, **lists: Any) -> Any:
        """Add a task mapped over lists or results, one instance per combination.

        Args:
            lists: Keyword → a list, or the reference to a result that is one. The last one
                changes fastest.
        """
        return PartialTask(self, {}).expand(**lists)

    def expand_kwargs(self, rows: Any) -> Any:
        """Add a task mapped over a list of dicts of arguments, or a result that is one."""
        return PartialTask(self, {}).expand_kwargs(rows)

    def add(
        self,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        expand_inputs: tuple[ExpandInput, ...],
    ) -> Reference:
        """Add a task to the open DAG, its arguments checked before."""
        body = self._body(args, kwargs)
        # The code object, as a function that is defined in a loop is a new one each time.
        origin = getattr(self.function, "__code__", self.function)
        node = new_node(
            self.task_id,
            body,
            self._options,
            role=self.role,
            expand_inputs=expand_inputs,
            origin=origin,
            dag=self._dag,
        )
        node.add_dependencies()
        return Reference(node)

    def _body(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> FunctionBody:
        if self._target is not None and isinstance(self._signature, SensorSignature):
            return SensorBody(self._signature, args, kwargs, self._target)
        if self._poll_spec is not None:
            return PollBody(self._signature, args, kwargs, self._poll_spec)
        return FunctionBody(self._signature, args, kwargs, operator=self.operator)

    def check_arguments(self, values: list[Any]) -> None:
        """Raise DefinitionError for a task function or operator in place of its result."""
        for value in values:
            if isinstance(value, MapExpression):
                raise self._error("pass a map expression to .expand()")
            if isinstance(value, TaskFunction):
                raise self._error(f"pass {value.task_id}(), not {value.task_id}")
            if isinstance(value, Chainable) and not isinstance(value, Reference):
                raise self._error("pass `.output` of the operator, or order them with >>")

    def check_call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Raise DefinitionError unless the function can be called like that."""
        self.check_names(kwargs)
        try:
            self._signature.check(args, kwargs)
        except TypeError as error:
            raise self._error(f"{self.function.__name__}() {error}") from None

    def check_names(self, names: Mapping[str, Any]) -> None:
        """Raise DefinitionError for a keyword that the function does not have."""
        if self._signature.takes_any_keyword:
            return
        for name in names:
            if name not in self._signature.names:
                hint = suggestion(name, self._signature.names) if self._signature.names else ""
                raise self._error(f"{self.function.__name__}() has no argument {name!r}{hint}")

    def _error(self, message: str) -> Exception:
        return definition_error(message, task_id=self.task_id)

    def __repr__(self) -> str:
        return f"<task {self.task_id}; call it inside a DAG>"


class PartialTask:
    """A task with some arguments fixed, to be mapped over others."""

    def __init__(self, task: TaskFunction, kwargs: Mapping[str, Any]) -> None:
        task.check_arguments(list(kwargs.values()))
        task.check_names(kwargs)
        self._task = task
        self._kwargs = dict(kwargs)

    def expand(self, **lists: Any) -> Any:
        """Map over lists or results; see `TaskFunction.expand`."""
        mapped = expand_inputs(lists, self._kwargs, self._task.task_id)
        self._task.check_call((), self._kwargs | lists)
        return self._task.add((), self._kwargs, mapped)

    def expand_kwargs(self, rows: Any) -> Any:
        """Map over dicts of arguments; see `TaskFunction.expand_kwargs`."""
        mapped = expand_kwargs_input(rows, self._kwargs, self._task.task_id)
        if not isinstance(mapped.values, Reference):
            for row in mapped.values:
                self._task.check_call((), self._kwargs | row)
        return self._task.add((), self._kwargs, (mapped,))


class TaskDecorator:
    """The class of `task`: a decorator with variants as attributes."""

    def __init__(self, role: Role = "task", operator: str = "task") -> None:
        self._role: Role = role
        self._operator = operator

    @overload
    def __call__(self, function: Callable[..., Any], /) -> TaskFunction: ...

    @overload
    def __call__(
        self, function: None = None, /, **options: Unpack[TaskKeywords]
    ) -> Callable[[Callable[..., Any]], TaskFunction]: ...

    def __call__(self, function: Any = None, /, **options: Any) -> Any:
        """Declare a function as a task, with or without options."""
        if function is None:
            return functools.partial(self._declare, options)
        return self._declare(options, function)

    def _declare(self, given: dict[str, Any], function: Any) -> TaskFunction:
        if isinstance(function, TaskFunction):
            if self._role == "task":
                raise definition_error("the function is a task already", task_id=function.task_id)
            return function.override(**given).as_role(self._role)
        if not callable(function) or isinstance(function, type):
            raise definition_error(f"@task goes above a function, not {function!r}")
        return TaskFunction(function, given, role=self._role, operator=self._operator)

    @property
    def branch(self) -> "TaskDecorator":
        """Declare a function that returns the id, or ids, of the tasks to follow."""
        return TaskDecorator("branch", "branch")

    @property
    def short_circuit(self) -> "TaskDecorator":
        """Declare a function whose false result skips everything after it."""
        return TaskDecorator("short_circuit", "short_circuit")

    def sensor(
        self, wanted: Any = None, /, *, every: Seconds | None = None, **options: Any
    ) -> Callable[[Callable[..., Any]], TaskFunction]:
        """Declare a function that waits: for an event, or for what it looks for itself.

        With a trigger or dataset, the function runs after its event and gets it. With an empty
        function no worker is used: the result is the event's payload (of a dataset, a dict of the
        event's fields).

        With `every=`, the function looks: it returns True, False or `Poked(done, value)` and is
        called again until it is done. Between two looks it holds no slot and no process.

        Args:
            wanted: A trigger, a dataset, `Dataset.match(…)`, `.where(…)` or a timedelta; or a
                function of the Context, and of task arguments that it names, which returns one.
            every: The time between two looks, in place of `wanted`.
            options: The keywords of every task; `timeout` limits the wait, over all looks. With
                `every`: `soft_fail=True` skips the task when its timeout is over; `backoff`: the
                factor by which the time between looks grows, up to `max_every`.

        Raises:
            DefinitionError: It is not possible to wait for it.
        """
        if every is not None:
            return self._polling(wanted, {"every": every}, options)
        if wanted is None:
            hint = replacements(options, TASK_WORDS)
            raise definition_error(
                "@task.sensor needs what it waits for: @task.sensor(FileArrived(path=…)), or "
                "@task.sensor(every=timedelta(minutes=1)) to look again and again"
                + (f"; {hint}" if hint else "")
            )
        target = WaitTarget(wanted, "@task.sensor")

        def declare(function: Callable[..., Any] | None = None) -> TaskFunction:
            if not callable(function) or isinstance(function, type | TaskFunction):
                raise definition_error(
                    "give the sensor a trigger: @task.sensor(FileArrived(path=…))"
                )
            return TaskFunction(function, options, operator="sensor", target=target)

        return declare

    def _polling(
        self, wanted: object, poll: dict[str, Any], options: dict[str, Any]
    ) -> Callable[[Callable[..., Any]], TaskFunction]:
        if wanted is not None:
            raise definition_error(
                "a sensor waits for an event or looks every so often: leave out one of them"
            )
        poll |= {name: options.pop(name) for name in POLL_KEYWORDS if name in options}

        def declare(function: Callable[..., Any]) -> TaskFunction:
            if not callable(function) or isinstance(function, type | TaskFunction):
                raise definition_error(f"@task.sensor goes above a function, not {function!r}")
            return TaskFunction(function, options, operator="sensor", poll=poll)

        return declare

    @property
    def bash(self) -> "TaskDecorator":
        """Declare a function that returns a command, which bash then runs."""
        return TaskDecorator("task", "bash")


task = TaskDecorator()
setup = TaskDecorator("setup")
teardown = TaskDecorator("teardown")
