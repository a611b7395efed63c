"""Jinja templates in the fields of operators.

The import of jinja2 takes 40 ms, so only `bind` imports this module, at a runner's first template.
"""

import shlex
from collections.abc import Collection, Mapping
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateSyntaxError, nodes, pass_eval_context
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pubsubflow.authoring.runtime.context import Context
from pubsubflow.authoring.runtime.context_names import NAMES
from pubsubflow.authoring.runtime.named_values import NamedValues
from pubsubflow.authoring.runtime.sql_text import quote_identifier
from pubsubflow.authoring.source_location import suggestion


class _Undefined(StrictUndefined):
    """What a template gets for a name that is not there; says how a missing value is set."""

    __slots__ = ()

    @property
    def _undefined_message(self) -> str:
        if isinstance(self._undefined_obj, NamedValues):
            return self._undefined_obj.describe_missing(str(self._undefined_name))
        return super()._undefined_message


# A template stands in a DAG file, but a class may build one from an event: the sandbox keeps such
# a text from calling what it finds.
_ENVIRONMENT = ImmutableSandboxedEnvironment(
    undefined=_Undefined,
    keep_trailing_newline=True,
    autoescape=False,
)


def quote_for_shell(value: object) -> str:
    """Return a value as one word of a shell command: the filter `sh`."""
    return shlex.quote(str(value))


class VerbatimText(str):
    """A text that a filter has made fit to stand in a statement as it is."""

    __slots__ = ()


def quote_for_sql(name: object) -> str:
    """Return a name of a table or column, perhaps with dots, quoted: the filter `identifier`."""
    return VerbatimText(quote_identifier(name))


_ENVIRONMENT.filters["sh"] = quote_for_shell
_ENVIRONMENT.filters["identifier"] = quote_for_sql


_METHODS = frozenset({"get", "items", "keys", "values"})

# Attributes whose values come from events, callers or other tasks.
_OUTSIDE = frozenset(
    {
        *("params", "events", "result", "partition", "cause", "extra", "connection", "variable"),
        *("pull", "xcom_pull", "conf", "partition_key", "element"),
    }
)
# Names whose values do.
_OUTSIDE_NAMES = frozenset(
    {"params", "element", "events", "partition", "var", "conn", "triggering_asset_events"}
)
# Filters whose results are numbers, or one word of a shell command.
_HARMLESS_FILTERS = frozenset({"sh", "int", "float", "length", "count", "abs", "round"})


@lru_cache(maxsize=1024)
def _compiled(text: str) -> Template:
    return _ENVIRONMENT.from_string(text)


@lru_cache(maxsize=1024)
def _used_names(text: str) -> frozenset[str]:
    return frozenset(find_undeclared_variables(_ENVIRONMENT.parse(text)) & NAMES.keys())


def find_fault(text: str, params: Collection[str]) -> str | None:
    """Return why a template can never be rendered; None if it may be.

    Args:
        text: The template.
        params: What stands behind `params.` in templates of its DAG.
    """
    try:
        tree = _ENVIRONMENT.parse(text)
        # Filters and tests are looked up when it is compiled.
        _compiled(text)
    except TemplateSyntaxError as error:
        return (
            f"{error.message} (line {error.lineno}): put {{% raw %}} … {{% endraw %}} around "
            "braces that are not a template"
        )
    used = find_undeclared_variables(tree)
    for name in sorted(used - _ENVIRONMENT.globals.keys() - NAMES.keys()):
        return f"{name!r} is unknown{suggestion(name, NAMES)}"
    optional = {
        id(inner)
        for kind, names in (
            (nodes.Filter, {"default", "d"}),
            (nodes.Test, {"defined", "undefined"}),
        )
        for outer in tree.find_all(kind)
        if outer.name in names
        for inner in outer.find_all((nodes.Getattr, nodes.Getitem))
    }
    each: Any
    for each in tree.find_all((nodes.Getattr, nodes.Getitem)):
        if not used.intersection(("params", "run", "ctx")) or not _is_params(each.node):
            continue
        item: Any = each.attr if isinstance(each, nodes.Getattr) else each.arg
        param = item.value if isinstance(item, nodes.Const) else item
        if isinstance(param, str) and param not in params and id(each) not in optional:
            known = sorted(set(params) - _METHODS)
            hint = suggestion(param, known) if known else "; the DAG has none"
            return f"{param!r} is not a param of its DAG{hint}"
    return None


def _is_params(node: nodes.Node) -> bool:
    """Return whether an expression stands for the run's params."""
    if isinstance(node, nodes.Name):
        return bool(node.name == "params")
    if not isinstance(node, nodes.Getattr) or node.attr != "params":
        return False
    run = node.node
    if isinstance(run, nodes.Getattr):
        return run.attr == "run" and isinstance(run.node, nodes.Name) and run.node.name == "ctx"
    return isinstance(run, nodes.Name) and run.name == "run"


def find_unquoted(text: str) -> list[str]:
    """Return the expressions that put a value from outside into a text without the filter `sh`.

    Args:
        text: A template that a shell reads when it is rendered.
    """
    tree = _ENVIRONMENT.parse(text)
    outside = set(_OUTSIDE_NAMES)
    # A loop's variable, or a name that is set, comes from where its value does.
    bindings: list[tuple[Any, Any]] = [
        *((each.target, each.iter) for each in tree.find_all(nodes.For)),
        *((each.target, each.node) for each in tree.find_all(nodes.Assign)),
    ]
    for _ in bindings:
        for target, value in bindings:
            if _is_outside(value, outside):
                outside |= {
                    name.name
                    for name in (target, *target.find_all(nodes.Name))
                    if isinstance(name, nodes.Name)
                }
    return [
        _written(expression)
        for output in tree.find_all(nodes.Output)
        for expression in output.nodes
        if _is_outside(expression, outside)
    ]


def _is_outside(node: nodes.Node, names: Collection[str]) -> bool:
    """Return whether the value of an expression may hold text of an event, a caller or a task."""
    if isinstance(node, nodes.Filter) and node.name in _HARMLESS_FILTERS:
        return False
    if isinstance(node, nodes.Name):
        return node.name in names
    if isinstance(node, nodes.Getattr) and node.attr in _OUTSIDE:
        return True
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        return node.arg.value in _OUTSIDE or _is_outside(node.node, names)
    return any(_is_outside(child, names) for child in node.iter_child_nodes())


def _written(node: nodes.Node) -> str:
    """Return an expression as it may be written in a template, shortened."""
    if isinstance(node, nodes.Name):
        return node.name
    if isinstance(node, nodes.Getattr):
        return f"{_written(node.node)}.{node.attr}"
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        return f"{_written(node.node)}[{node.arg.value!r}]"
    if isinstance(node, nodes.Filter) and node.node is not None:
        return f"{_written(node.node)} | {node.name}"
    if isinstance(node, nodes.Call):
        return f"{_written(node.node)}(…)"
    return "…"


def render(text: str, context: Context) -> str:
    """Return the text with its `{{ … }}` replaced.

    Raises:
        jinja2.TemplateError: The template is invalid, or uses an unknown name.
    """
    return _compiled(text).render({name: NAMES[name](context) for name in _used_names(text)})


def render_names(text: str, names: Mapping[str, object]) -> str:
    """Return the text with its `{{ … }}` replaced, out of the given names.

    Raises:
        jinja2.TemplateError: The template is invalid, or uses an unknown name.
    """
    return _compiled(text).render(names)


_BOUND: ContextVar[dict[str, Any]] = ContextVar("pubsubflow_bound_values")


@pass_eval_context
def _bind_value(_: object, value: object) -> object:
    """Put a parameter in the place of a value; called at each `{{ … }}`, never while compiling."""
    if isinstance(value, VerbatimText):
        return value
    if isinstance(value, StrictUndefined):
        return value  # raises its own error, with its name
    values = _BOUND.get()
    name = f"psf_{len(values)}"
    values[name] = value
    return f":{name}"


@lru_cache(maxsize=256)
def _compiled_bound(text: str) -> Template:
    return _ENVIRONMENT.overlay(finalize=_bind_value).from_string(text)


def render_bound(text: str, context: Context) -> tuple[str, dict[str, Any]]:
    """Return a statement with a named parameter for each `{{ … }}`, and the parameters' values.

    Raises:
        jinja2.TemplateError: The template is invalid, or uses an unknown name.
    """
    values: dict[str, Any] = {}
    token = _BOUND.set(values)
    try:
        names = {name: NAMES[name](context) for name in _used_names(text)}
        return _compiled_bound(text).render(names), values
    finally:
        _BOUND.reset(token)
