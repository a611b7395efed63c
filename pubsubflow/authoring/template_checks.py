"""Templates are checked when a file is loaded, rather than at the first run.

Only the loader and tests of DAGs come here: jinja2 takes long to import, and runners execute the
same files.
"""

from collections.abc import Iterator
from importlib import import_module
from typing import Any

from pubsubflow.authoring.dag import DAG
from pubsubflow.authoring.source_location import definition_error
from pubsubflow.authoring.tasks.graph import Node
from pubsubflow.authoring.tasks.mapped.group_mapping import members
from pubsubflow.authoring.tasks.operators import MappedOperatorBody, OperatorBody
from pubsubflow.authoring.tasks.wait_target import is_template


def check_templates(dag: DAG) -> None:
    """Check the templates of all of a DAG's tasks.

    Raises:
        DefinitionError: One cannot be parsed, or uses a name or a param that does not exist.
    """
    for node in dag.ordered():
        for field, text in _templates(node):
            fault = import_module("pubsubflow.authoring.runtime.templates").find_fault(
                text, dag.params.attributes
            )
            if fault is not None:
                raise definition_error(
                    f"template field {field!r}: {fault}",
                    location=node.location,
                    dag_id=node.graph.dag_id,
                    task_id=node.task_id,
                )


def template_warnings(dag: DAG) -> tuple[str, ...]:
    """Return a line for each value from outside that goes into a shell command without quotes."""
    found: list[str] = []
    for node in dag.ordered():
        if not isinstance(node.body, OperatorBody | MappedOperatorBody):
            continue
        for field, text in _templates(node):
            if field not in node.body.shell_fields:
                continue
            where = f"DAG {dag.dag_id!r}, task {node.task_id!r}, {field}"
            found += [
                f"{where}: a shell reads {{{{ {each} }}}}, which may hold anything: write "
                f"{{{{ {each} | sh }}}}"
                for each in import_module("pubsubflow.authoring.runtime.templates").find_unquoted(
                    text
                )
            ]
    return tuple(found)


def _templates(node: Node) -> Iterator[tuple[str, str]]:
    """Yield the templates of a task that stand in its file, with the names of their fields."""
    body = node.body
    if node.options.map_index_template is not None:
        yield "map_index_template", node.options.map_index_template
    if not isinstance(body, OperatorBody | MappedOperatorBody):
        return
    for field, value in body.templates():
        yield from ((field, text) for text in _texts(value))
    for mapped in node.expand_inputs:
        # A result is data.
        rows = mapped.values if isinstance(mapped.values, list | tuple) else ()
        for row in rows:
            named = {mapped.name: row} if mapped.name else row
            if isinstance(named, dict):
                for field in named.keys() & set(body.template_fields):
                    yield from ((field, text) for text in _texts(named[field]))


def _texts(value: Any) -> Iterator[str]:
    return (each for each in members(value) if isinstance(each, str) and is_template(each))
