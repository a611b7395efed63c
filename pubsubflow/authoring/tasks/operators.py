"""Operators: tasks as classes, as in Airflow."""

import copy
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Unpack

from pubsubflow.authoring.runtime.context import Context
from pubsubflow.authoring.runtime.signatures import FunctionSignature, is_async
from pubsubflow.authoring.runtime.templating.template_files import with_file_texts
from pubsubflow.authoring.source_location import attributed_to, caller, definition_error, suggestion
from pubsubflow.authoring.tasks.body import Binding, Kind
from pubsubflow.authoring.tasks.graph import (
    Chainable,
    Node,
    Reference,
    Role,
    new_node,
)
from pubsubflow.authoring.tasks.mapped.group_mapping import ExpandInput
from pubsubflow.authoring.tasks.mapped.mapping import expand_inputs, expand_kwargs_input
from pubsubflow.authoring.tasks.options import OptionKeywords, check_id, check_options
from pubsubflow.authoring.tasks.setup_teardown import Scoped
from pubsubflow.authoring.tasks.start_trigger import (
    class_wait_target,
    operator_wait_target,
    runner_kind,
    wait_then_execute,
)
from pubsubflow.authoring.tasks.wait_target import WaitTarget
from pubsubflow.model.wire.waits import WaitSet

# The task id of an operator that a runner makes for a mapped instance: no DAG is open there.
_DETACHED = "pubsubflow:detached"


class _OperatorType(type):
    """Checks that a new operator became a task, after all of its constructors have run."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        # A subclass in user code calls our constructor: the task belongs to the line outside.
        with attributed_to(caller()):
            return cls._make(*args, **kwargs)

    def _make(cls, *args: Any, **kwargs: Any) -> Any:
        operator = super().__call__(*args, **kwargs)
        node = vars(operator).get("_node")
        if node is not None:
            _check_work(cls, operator, node.task_id)
        if node is None and not vars(operator).get("_detached"):
            raise definition_error(
                f"{cls.__name__}.__init__ must call super().__init__(task_id=…)",
                task_id=kwargs.get("task_id"),
            )
        if node is not None:
            vars(operator).update(_file_texts(cls, vars(operator), node.task_id))
            node.add_dependencies()
        return operator


class Operator(Scoped, Chainable, metaclass=_OperatorType):
    """A task as a class: subclass it and write `execute(self, ctx)`, `def` or `async def`.

    Args:
        task_id: The task's id, unique in its DAG.
        dag: Its DAG; the open one when None.
        options: The keywords of every task, such as `retries`.

    Attributes:
        template_fields: Names of attributes whose strings are rendered with Jinja before
            `execute`; see docs/templates.md for the names that they may use.
        template_ext: Endings such as `.sql`: a template field that names such a file beside the
            DAG file holds the file's text.
        shell_fields: Those of them that a shell reads: `dags check` warns when a value from outside
            goes there without the filter `sh`.
        bound_fields: Names of attributes whose templates `execute` renders itself, with parameters
            in the place of values; they are checked as others are.
        role: `branch`: the result is the ids of the tasks to follow; `short_circuit`: a false one
            skips what follows.
        start_trigger: A trigger, a timedelta or a dataset, here or as a property: `execute` runs
            after it and finds the event in `ctx.trigger_event`. An operator without `execute` has
            the event's payload as its result.

    Raises:
        DefinitionError: No DAG is open, or a keyword is unknown or invalid.
    """

    template_fields: ClassVar[Sequence[str]] = ()
    shell_fields: ClassVar[Sequence[str]] = ()
    template_ext: ClassVar[Sequence[str]] = ()
    bound_fields: ClassVar[Sequence[str]] = ()
    start_trigger: Any = None
    role: ClassVar[Role] = "task"
    _node: Node
    _detached: bool

    def __init__(
        self, *, task_id: str, dag: object = None, **options: Unpack[OptionKeywords]
    ) -> None:
        if task_id == _DETACHED:
            self._detached = True
            return
        check_id(task_id, "task_id")
        _check_class(type(self), task_id)
        checked = check_options(
            options, type(self).__name__, task_id=task_id, also=_own_keywords(type(self))
        )
        self._node = new_node(task_id, OperatorBody(self), checked, role=self.role, dag=dag)

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
        """Return the kind of runner that it needs."""
        return "async" if is_async(type(self).execute) else "sync"

    def roots(self) -> tuple[Node, ...]:
        """Return the operator's task."""
        return (self._node,)

    def leaves(self) -> tuple[Node, ...]:
        """Return the operator's task."""
        return (self._node,)

    def __repr__(self) -> str:
        node = vars(self).get("_node")
        return f"<{type(self).__name__} {node.task_id if node else ''}>"


class OperatorBody:
    """The body of a node that runs an operator."""

    def __init__(self, operator: Operator) -> None:
        self._operator = operator

    @property
    def kind(self) -> Kind:
        """The kind that the operator and its wait need."""
        cls, target = type(self._operator), self._target()
        return runner_kind(cls.__name__, self._operator.kind(), target, executes=_executes(cls))

    @property
    def operator(self) -> str:
        """The name of its class."""
        return type(self._operator).__name__

    @property
    def starts_with_wait(self) -> bool:
        """Whether it has a `start_trigger`."""
        return self._target() is not None

    def arguments(self) -> list[object]:
        """Return the operator's attributes, and the references in its trigger's fields."""
        target = self._target()
        own = list(vars(self._operator).values())
        return own if target is None else [*own, *target.references()]

    @property
    def template_fields(self) -> Sequence[str]:
        """Names of the attributes that are rendered."""
        return self._operator.template_fields

    @property
    def shell_fields(self) -> Sequence[str]:
        """Names of those that a shell reads."""
        return self._operator.shell_fields

    def templates(self) -> Iterator[tuple[str, Any]]:
        """Yield the attributes that are rendered, and the fields of its trigger."""
        names = (*self.template_fields, *self._operator.bound_fields)
        yield from ((name, vars(self._operator).get(name)) for name in names)
        target = self._target()
        if target is not None:
            yield from (("start_trigger", value) for value in target.rendered())

    def start_wait(self, timeout: float | None) -> WaitSet | None:
        """Return the wait before `execute`, if its target is known."""
        target = self._target()
        return None if target is None else target.start_wait(timeout)

    def bind(self, binding: Binding) -> Callable[[], Any]:
        """Return `execute` of a copy whose attributes are rendered and resolved."""
        target = self._target()
        # A static target was awaited before the task was handed to a worker.
        later = target is not None and not target.is_static
        # A copy, as the next attempt in this process renders the same templates again.
        return bind_operator(copy.copy(self._operator), binding, waits=later)

    def _target(self) -> WaitTarget | None:
        return operator_wait_target(self._operator)


class MappedOperatorBody:
    """The body of a mapped operator: each instance makes an operator of its own."""

    def __init__(self, cls: type[Operator], kwargs: Mapping[str, Any]) -> None:
        self._cls = cls
        self._kwargs = dict(kwargs)

    @property
    def kind(self) -> Kind:
        """The kind that the class's `execute` and its wait need."""
        kind: Kind = "async" if is_async(self._cls.execute) else "sync"
        if issubclass(self._cls, PythonOperator):
            kind = "async" if is_async(self._kwargs.get("python_callable")) else "sync"
        cls, target = self._cls, self._target()
        return runner_kind(cls.__name__, kind, target, executes=_executes(cls))

    @property
    def operator(self) -> str:
        """The name of the class."""
        return self._cls.__name__

    @property
    def starts_with_wait(self) -> bool:
        """Whether the class has a `start_trigger`."""
        return self._target() is not None

    def arguments(self) -> list[object]:
        """Return the fixed arguments."""
        return list(self._kwargs.values())

    @property
    def template_fields(self) -> Sequence[str]:
        """Names of the arguments that are rendered."""
        return self._cls.template_fields

    @property
    def shell_fields(self) -> Sequence[str]:
        """Names of those that a shell reads."""
        return self._cls.shell_fields

    def templates(self) -> Iterator[tuple[str, Any]]:
        """Yield the fixed arguments that are rendered, and the fields of the class's trigger."""
        names = (*self.template_fields, *self._cls.bound_fields)
        yield from ((name, self._kwargs.get(name)) for name in names)
        target = self._target()
        if target is not None:
            yield from (("start_trigger", value) for value in target.rendered())

    def start_wait(self, timeout: float | None) -> WaitSet | None:
        """Return the wait before `execute`, if the class determines it."""
        target = self._target()
        return None if target is None else target.start_wait(timeout)

    def bind(self, binding: Binding) -> Callable[[], Any]:
        """Return `execute` of an operator made from the fixed and the mapped arguments."""
        # Rendered before the operator is made: what it is mapped to may be a stranger's text, and
        # its attributes do not say which of them it went into.
        fields = self._cls.template_fields
        fixed = {
            name: binding.render(value, name) if name in fields else binding.resolve(value)
            for name, value in self._kwargs.items()
        }
        given = fixed | binding.render_elements(fields)
        operator = self._cls(task_id=_DETACHED, **given)
        if not binding.has_references:  # so nothing in its attributes comes from a result
            for name in set(fields).intersection(vars(operator)).difference(given):
                setattr(operator, name, binding.render(getattr(operator, name), name))
        target = self._target()
        known = target is not None and target.is_static
        return _execution(operator, binding, waits=not known)

    def _target(self) -> WaitTarget | None:
        return class_wait_target(self._cls)


def bind_operator(operator: Operator, binding: Binding, *, waits: bool) -> Callable[[], Any]:
    """Render and resolve the operator's attributes in place and return its call.

    Args:
        operator: A copy that may be changed.
        binding: The values of the task instance.
        waits: Whether a worker waits for its `start_trigger`, if it has one.
    """
    fields = operator.template_fields
    for name, value in list(vars(operator).items()):
        if name in fields:
            setattr(operator, name, binding.render(value, name))
        elif binding.has_references and name != "_node":
            setattr(operator, name, binding.resolve(value))
    return _execution(operator, binding, waits=waits)


def _execution(operator: Operator, binding: Binding, *, waits: bool) -> Callable[[], Any]:
    if waits and operator.start_trigger is not None:
        return wait_then_execute(operator, binding, executes=_executes(type(operator)))
    return functools.partial(operator.execute, binding.context)


class PartialOperator:
    """An operator with some arguments fixed, to be mapped over others."""

    def __init__(self, cls: type[Operator], task_id: str, kwargs: Mapping[str, Any]) -> None:
        self._cls = cls
        self._task_id = check_id(task_id, "task_id")
        own = _own_keywords(cls)
        self._fixed = {name: value for name, value in kwargs.items() if name in own}
        rest = {name: value for name, value in kwargs.items() if name not in own}
        self._dag = rest.pop("dag", None)
        self._options = check_options(rest, cls.__name__, task_id=task_id, also=own)

    def expand(self, **lists: Any) -> Reference:
        """Map over lists or results, one instance per combination, the last changes fastest."""
        for name in lists:
            self._check_own(name)
        return self._add(expand_inputs(lists, self._fixed, self._task_id))

    def expand_kwargs(self, rows: Any) -> Reference:
        """Map over a list of dicts of arguments, or a result that is one."""
        mapped = expand_kwargs_input(rows, self._fixed, self._task_id)
        if not isinstance(mapped.values, Reference):
            for name in {name for row in mapped.values for name in row}:
                self._check_own(name)
        return self._add((mapped,))

    def _check_own(self, name: str) -> None:
        own = _own_keywords(self._cls)
        if name not in own:
            raise definition_error(
                f"{self._cls.__name__} cannot be mapped over {name!r}{suggestion(name, own)}",
                task_id=self._task_id,
            )

    def _add(self, mapped: tuple[ExpandInput, ...]) -> Reference:
        _check_class(self._cls, self._task_id)
        _check_work(self._cls, None, self._task_id)
        fixed = self._fixed | _file_texts(self._cls, self._fixed, self._task_id)
        body = MappedOperatorBody(self._cls, fixed)
        node = new_node(self._task_id, body, self._options, expand_inputs=mapped, dag=self._dag)
        node.add_dependencies()
        return Reference(node)


class EmptyOperator(Operator):
    """Does nothing; joins and splits branches."""

    def kind(self) -> Kind:
        """Return `empty`: the manager finishes it."""
        return "empty"


class PythonOperator(Operator):
    """Calls a function.

    Args:
        python_callable: The function, `def` or `async def`.
        op_args: Its positional arguments.
        op_kwargs: Its keyword arguments. Parameters with names of Airflow's context, such as `ti`,
            `ds` or `params`, and `**context` are filled as there.
        templates_dict: Texts that are rendered, for a parameter of this name.
    """

    template_fields = ("op_args", "op_kwargs", "templates_dict")

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Sequence[Any] = (),
        op_kwargs: Mapping[str, Any] | None = None,
        templates_dict: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not callable(python_callable):
            raise definition_error(
                f"python_callable must be a function, not {python_callable!r}",
                task_id=kwargs.get("task_id"),
            )
        self.python_callable = python_callable
        self.op_args = tuple(op_args)
        self.op_kwargs = dict(op_kwargs or {})
        self.templates_dict = None if templates_dict is None else dict(templates_dict)
        super().__init__(**kwargs)

    def kind(self) -> Kind:
        """`async` for an `async def`."""
        return "async" if is_async(self.python_callable) else "sync"

    def execute(self, ctx: Context) -> Any:
        """Call the function."""
        signature = FunctionSignature(self.python_callable)
        more = {} if self.templates_dict is None else {"templates_dict": self.templates_dict}
        kwargs = signature.with_names(ctx, self.op_args, self.op_kwargs, **more)
        return signature.call(ctx, self.op_args, kwargs)()


def _file_texts(cls: Any, values: Mapping[str, Any], task_id: str) -> dict[str, Any]:
    return with_file_texts(
        values,
        (*cls.template_fields, *cls.bound_fields),
        cls.template_ext,
        shell_fields=cls.shell_fields,
        task_id=task_id,
    )


def _own_keywords(cls: type[Operator]) -> set[str]:
    """Return the keywords of the constructors between the class and Operator."""
    # Stops at Operator: its own keywords are task options, which cannot be mapped over.
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
        raise definition_error(f"{cls.__name__} needs a method execute(self, ctx)", task_id=task_id)


def _check_class(cls: type[Operator], task_id: str) -> None:
    if isinstance(cls.template_fields, str):
        raise definition_error(
            f"{cls.__name__}.template_fields must be a tuple: ({cls.template_fields!r},)",
            task_id=task_id,
        )
