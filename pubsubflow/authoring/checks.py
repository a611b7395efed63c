"""Checks are functions under `@check` that judge each event of a dataset before others get it."""

import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypedDict, Unpack, get_args

from msgspec.structs import replace

from pubsubflow.authoring.dag import DAG
from pubsubflow.authoring.datasets import Dataset
from pubsubflow.authoring.runtime.context import Context
from pubsubflow.authoring.runtime.signatures import FunctionSignature, is_async, is_generator
from pubsubflow.authoring.schedules.dataset_expressions import (
    ConstrainedDataset,
    DatasetExpression,
)
from pubsubflow.authoring.source_location import definition_error, suggestion
from pubsubflow.authoring.tasks.body import Binding, FunctionBody
from pubsubflow.authoring.tasks.graph import Graph, new_node
from pubsubflow.authoring.tasks.options import check_id, check_options
from pubsubflow.authoring.validation import Seconds
from pubsubflow.model.schedule.checks import (
    CHECK_PREFIX,
    CHECK_TASK,
    OWN_DATASETS,
    CheckPolicy,
    Severity,
    encode_result,
)
from pubsubflow.model.schedule.conditions import ScheduleSpec

_DAG_OPTIONS = ("description", "max_active_runs", "owner", "retention", "tags")
_MOST_PARAMETERS = 2


class CheckKeywords(TypedDict, total=False):
    """Further keywords of `@check`: of its tasks, and of its DAG."""

    retries: Any
    retry_delay: Seconds
    timeout: Seconds
    pool: str | None
    resources: Any
    description: str | None
    max_active_runs: int
    owner: str | None
    retention: Any
    tags: Any


class CheckDag(DAG):
    """The DAG that a check is: a run of it checks one event."""

    id_prefix = CHECK_PREFIX

    def __init__(
        self, name: str, expression: DatasetExpression, policy: CheckPolicy, options: dict[str, Any]
    ) -> None:
        super().__init__(name, schedule=expression, **options)
        schedule: ScheduleSpec = self.schedule  # type: ignore[assignment]  # it has one
        self.schedule = replace(schedule, policy=policy)


class Check:
    """A function declared with `@check`; it can be called as the plain function that it is.

    Attributes:
        function: The function.
        name: Its name among all checks.
        dataset: The dataset, or the pattern of datasets, whose events it checks.
        blocking: Whether an event reaches no other subscriber before it has passed.
        severity: That of a failure, unless its result names another.
        dag: The DAG that it is.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        dataset: DatasetExpression,
        policy: CheckPolicy,
        name: str | None,
        options: Mapping[str, Any],
    ) -> None:
        if not callable(function) or isinstance(function, type | Graph):
            raise definition_error(f"@check goes above a function, not {function!r}")
        functools.update_wrapper(self, function)
        self.function = function
        self.name = check_id(
            name if name is not None else getattr(function, "__name__", ""), "@check: name"
        )
        self.dataset = dataset
        self.blocking = policy.blocking
        self.severity = policy.severity
        given = dict(options)
        of_dag = {key: given.pop(key) for key in _DAG_OPTIONS if given.get(key) is not None}
        doc = inspect.getdoc(function) or ""
        of_dag.setdefault("description", doc.partition("\n")[0] or None)
        body = CheckBody(function, self.name)
        of_task = check_options(given, "@check", task_id=self.name)
        self.dag = CheckDag(
            self.name, dataset, policy, {key: each for key, each in of_dag.items() if each}
        )
        new_node(
            CHECK_TASK, body, of_task | ({"doc": doc} if doc else {}), origin=function, dag=self.dag
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the plain function."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<check {self.name} of {self.dataset!r}>"


class CheckBody(FunctionBody):
    """The work of a check: its function, called with the event of the run.

    Args:
        function: The function: of the context and the event, or of one of them.
        name: Its name, for errors.
    """

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        if is_generator(function):
            raise definition_error("a check cannot `yield`; return True or False", task_id=name)
        super().__init__(FunctionSignature(function), (), {}, operator="check")
        self.name = name
        self._takes_context, self._takes_event = self._parameters()

    def _parameters(self) -> tuple[bool, bool]:
        """Return whether the function takes the context by position, and whether the event."""
        names = self.signature.names
        if not self.signature.contexts:
            if names[:1] in (["ctx"], ["context"]):
                names = names[1:]
                takes_context = True
            else:
                takes_context = len(names) == _MOST_PARAMETERS
                names = names[1:] if takes_context else names
        else:
            takes_context = False
        given = [None] * (takes_context + bool(names))
        try:
            self.signature.check(tuple(given), {})
        except TypeError:
            raise definition_error(
                f"{self.name}() is a check: it takes (ctx, event)", task_id=self.name
            ) from None
        return takes_context, bool(names)

    def bind(self, binding: Binding) -> Callable[[], Any]:
        """Return the call with the context and the event of the run.

        Raises:
            LookupError: The run has no event.
        """
        context: Context = binding.context
        events = [event for found in context.events.values() for event in found]
        if not events:
            raise LookupError(
                f"{CHECK_PREFIX}{self.name} checks events: start it with one, by "
                "`pubsubflow checks run-again EVENT` or `pubsubflow.testing.run_check`"
            )
        args = [context] * self._takes_context + [events[0]] * self._takes_event
        call = self.signature.call(context, tuple(args), {})
        if not is_async(self.signature.function):
            return lambda: encode_result(call(), self.name)

        async def judge() -> Any:
            pending: Awaitable[Any] = call()
            return encode_result(await pending, self.name)

        return judge


def check(
    dataset: Dataset | ConstrainedDataset,
    *,
    blocking: bool = True,
    severity: Severity = "error",
    name: str | None = None,
    **options: Unpack[CheckKeywords],
) -> Callable[[Callable[..., Any]], Check]:
    """Declare a function `(ctx, event)` that judges each event of a dataset.

    It returns True, False or `CheckResult(passed, severity, description, metadata)`. While a
    blocking check has not passed, the event reaches no other subscriber: no DAG, no wait, no push
    subscription. An exception is a failure, once the retries are used up.

    Args:
        dataset: A dataset, or `Dataset.match(…)`.
        blocking: Whether events are held until it has passed.
        severity: `error`, or `warn`, which never holds an event once the check has ended.
        name: Its name among all checks; that of the function if left out.
        options: `retries`, `retry_delay`, `timeout`, `pool`, `resources` as for tasks;
            `description`, `max_active_runs`, `owner`, `retention`, `tags` as for DAGs.

    Raises:
        DefinitionError: An argument is invalid.
    """
    expression = _checked_dataset(dataset)
    if not isinstance(blocking, bool):
        raise definition_error(f"@check: blocking={blocking!r} must be True or False")
    if severity not in get_args(Severity):
        raise definition_error(f"@check: severity={severity!r} must be 'error' or 'warn'")
    for key in sorted(set(options) - set(CheckKeywords.__annotations__)):
        raise definition_error(
            f"@check has no keyword {key!r}{suggestion(key, CheckKeywords.__annotations__)}"
        )
    policy = CheckPolicy(blocking, severity)
    return lambda function: Check(function, expression, policy, name, options)


def _checked_dataset(dataset: object) -> DatasetExpression:
    """Return what is checked.

    Raises:
        DefinitionError: It is neither a dataset nor a pattern, has constraints, or is our own.
    """
    plain = isinstance(dataset, Dataset) or (
        isinstance(dataset, ConstrainedDataset) and dataset.is_plain_pattern
    )
    if not isinstance(dataset, DatasetExpression) or not plain:
        raise definition_error(
            f"@check goes with one dataset, @check(orders), or Dataset.match(…), not {dataset!r}"
        )
    if dataset.dataset_input.uri.startswith(OWN_DATASETS):
        raise definition_error(
            f"events of {dataset.dataset_input.uri} announce what happens here: no check holds them"
        )
    return dataset
