"""Operators: tasks as classes, for those who come from Airflow."""

import copy
import functools
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Unpack

from pubsubflow.authoring.graph import (
    Chainable,
    MappedOver,
    Node,
    Reference,
    new_node,
    references,
)
from pubsubflow.authoring.mapping import keyword_factors, row_factor
from pubsubflow.authoring.options import OptionKeywords, check_id, check_options
from pubsubflow.authoring.runtime.bash import as_variables, run_bash
from pubsubflow.authoring.runtime.context import Context
from pubsubflow.authoring.runtime.signatures import Signature, is_async
from pubsubflow.authoring.sensors import Awaited
from pubsubflow.authoring.source_location import caller, mistake, nearest, speaking_from
from pubsubflow.authoring.start_trigger import (
    class_awaited,
    kind_with_wait,
    operator_awaited,
    start_then_execute,
)
from pubsubflow.authoring.task_body import Binding, Kind
from pubsubflow.model.runs.waits import Waiting

_DETACHED = "pubsubflow:detached"


class _OperatorType(type):
    """Checks, once an operator's constructors are through, that it became a task."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        with speaking_from(caller()):
            return cls._make(*args, **kwargs)

    def _make(cls, *args: Any, **kwargs: Any) -> Any:
        operator = super().__call__(*args, **kwargs)
        node = vars(operator).get("_node")
        if node is not None:
            _check_work(cls, operator, node.task_id)
        if node is None and not vars(operator).get("_detached"):
            raise mistake(
                f"{cls.__name__}.__init__ must call super().__init__(task_id=…)",
                task_id=kwargs.get("task_id"),
            )
        if node is not None:
            node.wire()
        return operator


class Operator(Chainable, metaclass=_OperatorType):
    """A task as a class: subclass it and write `execute(self, ctx)`, `def` or `async def`.

    Args:
        task_id: The task's id, unique in its DAG.
        options: What every task understands, such as `retries`.

    Attributes:
        template_fields: Names of attributes whose texts are rendered with Jinja before
            `execute`, with `ctx`, `run`, `params` and `task` in reach.
        start_trigger: What must happen before `execute` runs, which finds the event in
            `ctx.trigger_event`: a trigger, a timedelta or a dataset, here or as a property. An
            operator without `execute` has the event's payload as its result.

    Raises:
        DefinitionError: No DAG is open, or a keyword is unknown or bad.
    """

    template_fields: ClassVar[Sequence[str]] = ()
    start_trigger: Any = None
    _node: Node
    _detached: bool

    def __init__(self, *, task_id: str, **options: Unpack[OptionKeywords]) -> None:
        if task_id == _DETACHED:
            self._detached = True
            return
        check_id(task_id, "task_id")
        _check_class(type(self), task_id)
        checked = check_options(
            options, type(self).__name__, task_id=task_id, also=_own_keywords(type(self))
        )
        self._node = new_node(task_id, OperatorBody(self), checked)

    @classmethod
    def partial(cls, *, task_id: str, **kwargs: Any) -> "PartialOperator":
        """Fix some arguments of an operator that is then mapped with `expand`."""
        return PartialOperator(cls, task_id, kwargs)

    def execute(self, ctx: Context) -> Any:
        """Do the work and return the result; may be `async def`."""
        raise NotImplementedError

    @property
    def task_id(self) -> str:
        """The task's id with the prefixes of its groups."""
        return self._node.task_id

    @property
    def output(self) -> Reference:
        """The reference to the result."""
        return Reference(self._node)

    def kind(self) -> Kind:
        """Return which sort of runner it needs."""
        return "async" if is_async(type(self).execute) else "sync"

    def heads(self) -> tuple[Node, ...]:
        """Return the operator's task."""
        return (self._node,)

    def tails(self) -> tuple[Node, ...]:
        """Return the operator's task."""
        return (self._node,)

    def __repr__(self) -> str:
        node = vars(self).get("_node")
        return f"<{type(self).__name__} {node.task_id if node else ''}>"


class OperatorBody:
    """An operator as what a node runs."""

    def __init__(self, operator: Operator) -> None:
        self._operator = operator

    @property
    def kind(self) -> Kind:
        """What the operator says, and what its wait needs."""
        cls, awaited = type(self._operator), self._awaited()
        return kind_with_wait(cls.__name__, self._operator.kind(), awaited, executes=_executes(cls))

    @property
    def operator(self) -> str:
        """The name of its class."""
        return type(self._operator).__name__

    @property
    def waits_first(self) -> bool:
        """Whether it has a `start_trigger`."""
        return self._awaited() is not None

    def values(self) -> list[object]:
        """Return the operator's attributes, and what its trigger takes of other tasks."""
        awaited = self._awaited()
        own = list(vars(self._operator).values())
        return own if awaited is None else [*own, *awaited.references()]

    def start(self, timeout: float | None) -> Waiting | None:
        """Return what must happen before `execute`, if that is known."""
        awaited = self._awaited()
        return None if awaited is None else awaited.start(timeout)

    def bind(self, binding: Binding) -> Callable[[], Any]:
        """Return `execute` of a copy whose attributes are rendered and resolved."""
        awaited = self._awaited()
        later = awaited is not None and not awaited.known
        return bind_operator(copy.copy(self._operator), binding, waits=later)

    def _awaited(self) -> Awaited | None:
        return operator_awaited(self._operator)


class MappedOperatorBody:
    """An operator that is made anew for each instance."""

    def __init__(self, cls: type[Operator], kwargs: Mapping[str, Any]) -> None:
        self._cls = cls
        self._kwargs = dict(kwargs)

    @property
    def kind(self) -> Kind:
        """What the class's `execute` needs, and its wait."""
        kind: Kind = "async" if is_async(self._cls.execute) else "sync"
        if issubclass(self._cls, PythonOperator):
            kind = "async" if is_async(self._kwargs.get("python_callable")) else "sync"
        cls, awaited = self._cls, self._awaited()
        return kind_with_wait(cls.__name__, kind, awaited, executes=_executes(cls))

    @property
    def operator(self) -> str:
        """The name of the class."""
        return self._cls.__name__

    @property
    def waits_first(self) -> bool:
        """Whether the class has a `start_trigger`."""
        return self._awaited() is not None

    def values(self) -> list[object]:
        """Return the fixed arguments."""
        return list(self._kwargs.values())

    def start(self, timeout: float | None) -> Waiting | None:
        """Return what must happen before `execute`, if the class knows."""
        awaited = self._awaited()
        return None if awaited is None else awaited.start(timeout)

    def bind(self, binding: Binding) -> Callable[[], Any]:
        """Return `execute` of an operator made from the fixed and the mapped arguments."""
        operator = self._cls(task_id=_DETACHED, **self._kwargs, **binding.elements)
        awaited = self._awaited()
        known = awaited is not None and awaited.known
        return bind_operator(operator, binding, waits=not known)

    def _awaited(self) -> Awaited | None:
        return class_awaited(self._cls)


def bind_operator(operator: Operator, binding: Binding, *, waits: bool) -> Callable[[], Any]:
    """Render and resolve the operator's attributes in place and return its call.

    Args:
        operator: A copy that may be changed.
        binding: What it gets.
        waits: Whether its `start_trigger` is waited for here, if it has one.
    """
    fields = operator.template_fields
    for name, value in list(vars(operator).items()):
        if name in fields:
            setattr(operator, name, binding.render(value, name))
        elif next(references(value), None) is not None:
            setattr(operator, name, binding.resolve(value))
    if waits and operator.start_trigger is not None:
        return start_then_execute(operator, binding, executes=_executes(type(operator)))
    return functools.partial(operator.execute, binding.context)


class PartialOperator:
    """An operator with some arguments fixed, to be mapped over others."""

    def __init__(self, cls: type[Operator], task_id: str, kwargs: Mapping[str, Any]) -> None:
        self._cls = cls
        self._task_id = check_id(task_id, "task_id")
        own = _own_keywords(cls)
        self._fixed = {name: value for name, value in kwargs.items() if name in own}
        rest = {name: value for name, value in kwargs.items() if name not in own}
        self._options = check_options(rest, cls.__name__, task_id=task_id, also=own)

    def expand(self, **factors: Any) -> Reference:
        """Map over lists or results, one instance per combination, the last changes fastest."""
        for name in factors:
            self._check_own(name)
        return self._add(keyword_factors(factors, self._fixed, self._task_id))

    def expand_kwargs(self, rows: Any) -> Reference:
        """Map over a list of dicts of arguments, or a result that is one."""
        factor = row_factor(rows, self._fixed, self._task_id)
        if not isinstance(factor.values, Reference):
            for name in {name for row in factor.values for name in row}:
                self._check_own(name)
        return self._add((factor,))

    def _check_own(self, name: str) -> None:
        own = _own_keywords(self._cls)
        if name not in own:
            raise mistake(
                f"{self._cls.__name__} cannot be mapped over {name!r}{nearest(name, own)}",
                task_id=self._task_id,
            )

    def _add(self, factors: tuple[MappedOver, ...]) -> Reference:
        _check_class(self._cls, self._task_id)
        _check_work(self._cls, None, self._task_id)
        body = MappedOperatorBody(self._cls, self._fixed)
        node = new_node(self._task_id, body, self._options, factors=factors)
        node.wire()
        return Reference(node)


class EmptyOperator(Operator):
    """Does nothing; joins and splits."""

    def kind(self) -> Kind:
        """Nothing to run."""
        return "empty"


class PythonOperator(Operator):
    """Calls a function.

    Args:
        python_callable: The function, `def` or `async def`.
        op_args: Its positional arguments.
        op_kwargs: Its keyword arguments.
    """

    template_fields = ("op_args", "op_kwargs")

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Sequence[Any] = (),
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not callable(python_callable):
            raise mistake(
                f"python_callable must be a function, not {python_callable!r}",
                task_id=kwargs.get("task_id"),
            )
        self.python_callable = python_callable
        self.op_args = tuple(op_args)
        self.op_kwargs = dict(op_kwargs or {})
        super().__init__(**kwargs)

    def kind(self) -> Kind:
        """`async` for an `async def`."""
        return "async" if is_async(self.python_callable) else "sync"

    def execute(self, ctx: Context) -> Any:
        """Call the function."""
        signature = Signature(self.python_callable)
        return signature.call(ctx, self.op_args, self.op_kwargs)()


class BashOperator(Operator):
    """Runs a command with bash; the last line it prints is the result.

    Args:
        bash_command: What `bash -c` runs; any exit code but 0 fails the task.
        env: Variables added to those of the worker.
        cwd: Folder to run it in.
    """

    template_fields = ("bash_command", "env", "cwd")

    def __init__(
        self,
        *,
        bash_command: str,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> None:
        self.bash_command = bash_command
        self.env = dict(env) if env else None
        self.cwd = cwd
        super().__init__(**kwargs)

    def execute(self, ctx: Context) -> str:
        """Run the command."""
        return run_bash(
            self.bash_command, {**as_variables(ctx.trace), **(self.env or {})}, self.cwd
        )


def _own_keywords(cls: type[Operator]) -> set[str]:
    """Return the keywords of the constructors between the class and Operator."""
    own: set[str] = set()
    for parent in cls.__mro__:
        if parent is Operator:
            break
        constructor = vars(parent).get("__init__")
        if constructor is None:
            continue
        own |= {
            name
            for name, parameter in inspect.signature(constructor).parameters.items()
            if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        }
    return own - {"self", "task_id"}


def _executes(cls: type[Operator]) -> bool:
    return cls.execute is not Operator.execute or cls.kind is not Operator.kind


def _check_work(cls: Any, operator: Operator | None, task_id: str) -> None:
    """Raise DefinitionError for an operator that neither executes nor waits."""
    waits = cls.start_trigger is not None or "start_trigger" in vars(operator or cls)
    if not (_executes(cls) or waits):
        raise mistake(f"{cls.__name__} needs a method execute(self, ctx)", task_id=task_id)


def _check_class(cls: type[Operator], task_id: str) -> None:
    if isinstance(cls.template_fields, str):
        raise mistake(
            f"{cls.__name__}.template_fields must be a tuple: ({cls.template_fields!r},)",
            task_id=task_id,
        )
