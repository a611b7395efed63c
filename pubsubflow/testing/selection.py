"""Task selection by name and neighbourhood, and the spec restricted to it."""

import re
from collections.abc import Iterable, Mapping, Sequence

from msgspec.structs import replace

from pubsubflow.authoring.source_location import suggestion
from pubsubflow.errors import InvalidInput
from pubsubflow.model.runs.plan import Plan
from pubsubflow.model.spec import DagSpec, MappedArgument, TaskSpec

_TERM = re.compile(r"(\*|\+*)([A-Za-z0-9_.-]+)(\*|\+*)")


def selected_nodes(spec: DagSpec, select: str | Iterable[str] | None) -> frozenset[int]:
    """Return the nodes that a selection names; all for None.

    Args:
        spec: The DAG.
        select: For example `*report+`: `name` alone, `+` for each layer of neighbours, `*` for
            all of them, before the name for upstream and after it for downstream; several are
            joined by commas or in a list. `*` alone is every task.

    Raises:
        InvalidInput: A term cannot be read or names no task.
    """
    if select is None:
        return frozenset(task.node for task in spec.tasks)
    texts = [select] if isinstance(select, str) else list(select)
    terms = [term.strip() for text in texts for term in text.split(",")]
    plan = Plan(spec)
    # Tasks come with what sets up and cleans up for them.
    return frozenset(plan.with_scopes(frozenset().union(*(_term(plan, term) for term in terms))))


def find_node(spec: DagSpec, task_id: str, where: str) -> int:
    """Return a task's node.

    Raises:
        InvalidInput: The task is unknown.
    """
    nodes = {task.task_id: task.node for task in spec.tasks}
    if task_id not in nodes:
        hint = suggestion(task_id, nodes)
        raise InvalidInput(f"{where}: DAG {spec.dag_id!r} has no task {task_id!r}{hint}")
    return nodes[task_id]


def restrict_spec(spec: DagSpec, chosen: frozenset[int], lengths: Mapping[int, int]) -> DagSpec:
    """Return the spec in which only the chosen tasks run, under their old numbers.

    A task that is not chosen but lies between chosen ones is empty and passes on the result of its
    trigger rule; no chosen task waits for any other task.

    Args:
        spec: The whole DAG.
        chosen: Nodes that run.
        lengths: Node → number of elements of its result, for lists that are given.

    Raises:
        InvalidInput: A chosen task is mapped over a list that is missing.
    """
    plan = Plan(spec)
    upstream = tuple(task.upstream for task in spec.tasks)
    # Tasks on a path between chosen ones pass on failures and branches.
    between = _reached(plan.downstream, chosen, None) & _reached(upstream, chosen, None)
    tasks = []
    for task in spec.tasks:
        before = tuple(node for node in task.upstream if node in between)
        if task.node in chosen:
            factors = tuple(
                _factor(spec, task, each, chosen, lengths) for each in task.mapped_arguments
            )
            tasks.append(replace(task, upstream=before, mapped_arguments=factors))
        elif task.node in between:
            rule, role = task.trigger_rule, task.role
            tasks.append(
                TaskSpec(task.node, task.task_id, "empty", role, upstream=before, trigger_rule=rule)
            )
        else:
            tasks.append(TaskSpec(task.node, task.task_id, "empty"))
    return replace(spec, tasks=tuple(tasks))


def _term(plan: Plan, term: str) -> frozenset[int]:
    spec = plan.spec
    if term == "*":
        return frozenset(task.node for task in spec.tasks)
    read = _TERM.fullmatch(term)
    if read is None:
        raise InvalidInput(
            f"select: {term!r} is not a selection; write a task id with `+` or `*` "
            "before or after it"
        )
    above, task_id, below = read.groups()
    start = frozenset({find_node(spec, task_id, "select")})
    upstream = tuple(task.upstream for task in spec.tasks)
    return _reached(upstream, start, _layers(above)) | _reached(
        plan.downstream, start, _layers(below)
    )


def _layers(signs: str) -> int | None:
    return None if signs == "*" else len(signs)


def _reached(
    edges: Sequence[Sequence[int]], start: frozenset[int], layers: int | None
) -> frozenset[int]:
    """Return the nodes within so many layers of the start; None is any number."""
    found, edge = set(start), set(start)
    while edge and layers != 0:
        edge = {after for node in edge for after in edges[node]} - found
        found |= edge
        layers = None if layers is None else layers - 1
    return frozenset(found)


def _factor(
    spec: DagSpec,
    task: TaskSpec,
    factor: MappedArgument,
    chosen: frozenset[int],
    lengths: Mapping[int, int],
) -> MappedArgument:
    if factor.node is None or factor.node in chosen:
        return factor
    if factor.node not in lengths:
        origin = spec.tasks[factor.node].task_id
        raise InvalidInput(
            f"task {task.task_id!r} is mapped over the result of {origin!r}, which is not "
            f"selected; select it too, or give a list: results={{{origin!r}: [...]}}"
        )
    return MappedArgument(factor.name, length=lengths[factor.node])
