"""Graphs of DAGs: as text, or as Mermaid for pages, also with the states of a run."""

from collections.abc import Iterator, Mapping
from typing import Literal

from msgspec import Struct

from pubsubflow.cli import output
from pubsubflow.cli.target import DEFAULT, Target
from pubsubflow.client import Client
from pubsubflow.errors import ConfigError
from pubsubflow.model.api.resources import DagTaskView
from pubsubflow.model.api.versions import RunGraph

_COLOURS = {
    "success": "fill:#d7f0dd,stroke:#1f7a3a",
    "failed": "fill:#f9d6d5,stroke:#b3261e",
    "upstream_failed": "fill:#fbe3d6,stroke:#b3541e",
    "running": "fill:#d6ecf9,stroke:#1e6bb3",
    "skipped": "fill:#eeeeee,stroke:#888888",
}


class GraphNode(Struct, frozen=True):
    """A task of a graph.

    Attributes:
        level: Number of tasks on the longest way to it.
        states: State → number of instances, of a run.
        mapped: It has an instance for each element.
        map_group: The mapped group that it is in.
    """

    task_id: str
    level: int
    upstream: list[str]
    downstream: list[str]
    states: dict[str, int] = {}
    mapped: bool = False
    map_group: str | None = None


async def show_graph(
    dag: str,
    /,
    *,
    format: Literal["text", "mermaid"] = "text",
    run: str | None = None,
    target: Target = DEFAULT,
) -> None:
    """Print the graph of a DAG in its version in force, or in that of a run.

    Args:
        dag: Id of the DAG.
        format: Text, or Mermaid with the datasets that it takes and emits.
        run: Id of a run of the DAG, whose states are shown.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        if run is None:
            found = await client.dag(dag)
            tasks, taken, states = found.graph, [each.dataset for each in found.inputs], {}
        else:
            of_run = await _graph_of_run(client, dag, run)
            tasks, taken, states = of_run.graph, of_run.datasets, of_run.states
    nodes = list(_nodes(tasks, states))
    if target.json:
        output.show_list(nodes)
    elif format == "mermaid":
        output.show("\n".join(_mermaid(tasks, taken, nodes)))
    else:
        _show_text(nodes, with_states=run is not None)


async def _graph_of_run(client: Client, dag: str, run_id: str) -> RunGraph:
    """Return the graph of a run.

    Raises:
        ConfigError: It is a run of another DAG.
    """
    found = await client.run_graph(run_id)
    if found.dag_id != dag:
        raise ConfigError(f"{run_id} is a run of {found.dag_id}, not of {dag}")
    return found


def _nodes(tasks: list[DagTaskView], states: Mapping[str, dict[str, int]]) -> Iterator[GraphNode]:
    """Yield the tasks of a graph level by level."""
    levels: dict[str, int] = {}
    downstream: dict[str, list[str]] = {task.task_id: [] for task in tasks}
    for task in tasks:  # in topological order
        levels[task.task_id] = max((levels[each] + 1 for each in task.upstream), default=0)
        for each in task.upstream:
            downstream[each].append(task.task_id)
    for task in sorted(tasks, key=lambda task: levels[task.task_id]):
        yield GraphNode(
            task.task_id,
            levels[task.task_id],
            task.upstream,
            downstream[task.task_id],
            states.get(task.task_id, {}),
            task.mapped,
            task.map_group,
        )


def _show_text(nodes: list[GraphNode], *, with_states: bool) -> None:
    any_mapped = any(node.mapped for node in nodes)
    listing = output.Listing(
        *("level", "task", *["mapped"] * any_mapped, *["state"] * with_states, "before"),
        right=["level"],
        elastic=["before"],
    )
    level = None
    for node in nodes:
        shown = "" if node.level == level else str(node.level)
        level = node.level
        mapped = [node.map_group or ("yes" if node.mapped else "")] * any_mapped
        states = [output.state(_said(node.states))] * with_states
        listing.row(shown, node.task_id, *mapped, *states, ", ".join(node.downstream))
    listing.show(none="no tasks")


def _said(states: Mapping[str, int]) -> str:
    if list(states.values()) == [1]:
        return next(iter(states))
    return ", ".join(f"{number} {state}" for state, number in states.items())


def _mermaid(tasks: list[DagTaskView], taken: list[str], nodes: list[GraphNode]) -> Iterator[str]:
    """Yield the lines of a flowchart: tasks are boxes, datasets are cylinders.

    Args:
        tasks: The tasks.
        taken: The datasets that the schedule takes.
        nodes: The tasks as they are shown.
    """
    yield "flowchart LR"
    names = {node.task_id: f"t{number}" for number, node in enumerate(nodes)}
    yield from _boxes(nodes, names)
    datasets: dict[str, str] = {}
    outlets = [uri for task in tasks for uri in task.outlets]
    for uri in dict.fromkeys([*taken, *outlets]):
        datasets[uri] = f"d{len(datasets)}"
        yield f'    {datasets[uri]}[("{_quoted(uri)}")]'
    roots = [node for node in nodes if not node.upstream]
    for each in taken:
        yield from (f"    {datasets[each]} -.-> {names[root.task_id]}" for root in roots)
    for node in nodes:
        yield from (f"    {names[node.task_id]} --> {names[each]}" for each in node.downstream)
    for task in tasks:
        yield from (f"    {names[task.task_id]} -.-> {datasets[uri]}" for uri in task.outlets)
    for node in nodes:
        worst = next((state for state in reversed(_COLOURS) if state in node.states), None)
        worst = "failed" if "failed" in node.states else worst
        if worst is not None:
            yield f"    style {names[node.task_id]} {_COLOURS[worst]}"


def _boxes(nodes: list[GraphNode], names: Mapping[str, str]) -> Iterator[str]:
    """Yield the lines of tasks; those of a mapped group stand in a box around them."""
    groups: dict[str | None, list[GraphNode]] = {}
    for node in nodes:
        groups.setdefault(node.map_group, []).append(node)
    for number, (group, members) in enumerate(groups.items()):
        if group is not None:
            yield f'    subgraph g{number}["{_quoted(group)}: each element"]'
        for node in members:
            states = f"<br>{_said(node.states)}" if node.states else ""
            yield f'    {names[node.task_id]}["{_quoted(node.task_id)}{states}"]'
        if group is not None:
            yield "    end"


def _quoted(text: str) -> str:
    return text.replace("#", "#35;").replace('"', "#quot;").replace("<", "#lt;")
