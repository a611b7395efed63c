"""From nodes to their serialised form."""

from collections.abc import Mapping

from pubsubflow.authoring.graph import MappedOver, Node, Reference
from pubsubflow.model.spec import Factor, TaskSpec


def task_spec(node: Node, numbers: Mapping[Node, int], file: str) -> TaskSpec:
    """Return the serialised form of a node.

    Args:
        node: The node.
        numbers: Every node of the DAG → its number in topological order.
        file: Path of the DAG file relative to the DAGs folder.
    """
    options = node.options
    return TaskSpec(
        node=numbers[node],
        task_id=node.task_id,
        kind=node.body.kind,
        role=node.role,
        upstream=tuple(sorted(numbers[before] for before in node.upstream)),
        inputs=tuple(sorted(numbers[before] for before in node.inputs)),
        factors=tuple(_factor(factor, numbers) for factor in node.factors),
        trigger_rule=options.trigger_rule,
        retry=options.retry,
        timeout_seconds=None if node.body.waits_first else options.timeout,
        outlets=options.outlets.uris,
        outlet_patterns=options.outlets.patterns,
        inlets=options.inlets,
        queue=options.queue,
        pool=options.pool,
        priority=options.priority,
        concurrency_key=options.concurrency_key,
        operator=node.body.operator,
        doc=options.doc,
        line=node.place.line if node.place and node.place.file.endswith(file) else None,
        start=node.body.start(options.timeout),
    )


def _factor(factor: MappedOver, numbers: Mapping[Node, int]) -> Factor:
    if isinstance(factor.values, Reference):
        return Factor(factor.name, node=numbers[factor.values.node])
    return Factor(factor.name, length=len(factor.values))
