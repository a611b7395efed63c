"""Plan of a run: the facts that follow from a DAG's spec alone, computed once a version."""

from pubsubflow.model.runs.concurrency import DAG, KEY, POOL, Limit
from pubsubflow.model.spec import DagSpec, TaskSpec, TriggerRule

LONGEST_CHAIN = 64


class Plan:
    """The facts that follow from a DAG's spec alone.

    Attributes:
        spec: The version.
        downstream: Per node, the nodes that have it upstream.
        leaves: The nodes that decide the run's state: only teardowns are downstream of them.
        chains: Per node, the nodes that its runner may run directly afterwards: each is the only
            downstream task of the one before, waits for nothing else and has the same kind and
            queue, so the runner starts it without a round trip to the manager.
        limits: Per node, the limits of which its tasks need a slot, in order; empty when no task
            needs one.
    """

    def __init__(self, spec: DagSpec) -> None:
        self.spec = spec
        found: list[list[int]] = [[] for _ in spec.tasks]
        for task in spec.tasks:
            for node in task.upstream:
                found[node].append(task.node)
        self.downstream = tuple(map(tuple, found))
        # A failed clean-up does not fail the run.
        lasting = [task for task in spec.tasks if task.role != "teardown"]
        leads_on = {node for task in lasting for node in task.upstream}
        self.leaves = tuple(task.node for task in lasting if task.node not in leads_on)
        self.chains = self._chains()
        limits = tuple(_limits(spec, task) for task in spec.tasks)
        self.limits = limits if any(limits) else ()

    def _chains(self) -> tuple[tuple[int, ...], ...]:
        chains: dict[int, tuple[int, ...]] = {}
        for task in reversed(self.spec.tasks):
            after = self.downstream[task.node]
            chains[task.node] = ()
            # A chained task would run without the DAG's slot that the manager gives.
            bounded = self.spec.max_active_tasks is not None
            if len(after) == 1 and not bounded and _continues(task, self.spec.tasks[after[0]]):
                chains[task.node] = (after[0], *chains[after[0]])[:LONGEST_CHAIN]
        return tuple(chains[node] for node in range(len(self.spec.tasks)))


def _limits(spec: DagSpec, task: TaskSpec) -> tuple[Limit, ...]:
    found = []
    if spec.max_active_tasks is not None:
        found.append(Limit(f"{DAG}{spec.dag_id}", spec.max_active_tasks))
    if task.pool is not None:
        found.append(Limit(f"{POOL}{task.pool}"))
    if task.concurrency_key is not None:
        found.append(Limit(f"{KEY}{task.concurrency_key}", 1))
    return tuple(sorted(found))


def _continues(task: TaskSpec, follower: TaskSpec) -> bool:
    return (
        task.role == "task"
        and follower.start_wait is None
        and not (task.mapped or follower.mapped)
        and follower.upstream == (task.node,)
        and follower.kind == task.kind
        and follower.queue == task.queue
        and follower.pool is None
        and follower.concurrency_key is None
        and follower.trigger_rule
        in (TriggerRule.ALL_SUCCESS, TriggerRule.ALL_DONE, TriggerRule.NONE_FAILED)
    )
