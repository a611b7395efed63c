"""Plan of a run: the facts that follow from a DAG's spec alone, computed once a version."""

from collections.abc import Iterable

from msgspec import Struct

from pubsubflow.model.runs.concurrency import DAG, KEY, POOL, RATE, Limit
from pubsubflow.model.runs.mapped.groups import MappedGroup, mapped_groups
from pubsubflow.model.spec import DagSpec, TaskSpec, TriggerRule
from pubsubflow.model.wire.executor_spec import LOCAL

LONGEST_CHAIN = 64
MAX_MAP_LENGTH = 100_000


class SetupScope(Struct, frozen=True):
    """The setups of which a task uses what they made, and their teardowns.

    Attributes:
        setups: Setups anywhere upstream whose teardown is downstream, or that have none.
        indirect_setups: Those of them that are not right before the task.
        teardowns: The teardowns of the setups.
    """

    setups: tuple[int, ...] = ()
    indirect_setups: tuple[int, ...] = ()
    teardowns: tuple[int, ...] = ()


class Plan:
    """The facts that follow from a DAG's spec alone.

    Attributes:
        spec: The version.
        max_map_length: Instances of a mapped task at most.
        downstream: Per node, the nodes that have it upstream.
        concerned: Per node, the nodes to decide about when it has ended: those downstream, those
            that use what it set up, and those of a group that is mapped over its result.
        scopes: Per node, the setups that it uses; empty for a DAG without setups.
        leaves: The nodes that decide the run's state: only teardowns are downstream of them, or
            they are teardowns that shall; of a DAG of Airflow's, as that has it.
        chains: Per node, the nodes that its runner may run directly afterwards: each is the only
            downstream task of the one before, waits for nothing else, has the same kind and queue
            and declares no resources, so the runner starts it without a round trip to the manager.
        past: Whether a task waits for the previous run.
        limits: Per node, the limits of which its tasks need a slot, in order; empty when no task
            needs one. A concurrency key that follows from the run is the text of its template.
        groups: The mapped groups.
        group_of: Node → the mapped group that it is in.
    """

    def __init__(self, spec: DagSpec, *, max_map_length: int = MAX_MAP_LENGTH) -> None:
        self.spec = spec
        self.max_map_length = max_map_length
        found: list[list[int]] = [[] for _ in spec.tasks]
        for task in spec.tasks:
            for node in task.upstream:
                found[node].append(task.node)
        self.downstream = tuple(map(tuple, found))
        self.leaves = self._airflow_leaves() if spec.by_instance else self._leaves()
        self.scopes = self._scopes() if any(task.role == "setup" for task in spec.tasks) else ()
        self.groups = mapped_groups(spec)
        self.group_of: dict[int, MappedGroup] = {
            node: group for group in self.groups for node in group.places
        }
        self.concerned = self.downstream
        if self.scopes or self.groups:
            self._add_indirect(found)
            self.concerned = tuple(map(tuple, found))
        self.past = any(task.depends_on_past for task in spec.tasks)
        self.chains = self._chains()
        limits = tuple(_limits(spec, task) for task in spec.tasks)
        self.limits = limits if any(limits) else ()

    def _leaves(self) -> tuple[int, ...]:
        # A failed clean-up does not fail the run.
        lasting = [task for task in self.spec.tasks if task.role != "teardown"]
        leads_on = {node for task in lasting for node in task.upstream}
        return tuple(
            task.node
            for task in self.spec.tasks
            if (task.fails_run if task.role == "teardown" else task.node not in leads_on)
        )

    def _airflow_leaves(self) -> tuple[int, ...]:
        """Return the leaves as `DagRun._tis_for_dagrun_state` of Airflow has them.

        There a teardown that shall decide the state hides the tasks before it, whatever their ends.
        """
        tasks = self.spec.tasks
        counted = [task.role != "teardown" or task.fails_run for task in tasks]
        found = tuple(
            task.node
            for task in tasks
            if counted[task.node] and not any(counted[node] for node in self.downstream[task.node])
        )
        return found or tuple(task.node for task in tasks if not self.downstream[task.node])

    def _add_indirect(self, found: list[list[int]]) -> None:
        """Add what is to be decided about after a node beside what is downstream of it."""
        for node, scope in enumerate(self.scopes):
            for setup in scope.indirect_setups:
                found[setup].append(node)
        for group in self.groups:
            for source in group.sources:
                found[source] += [node for node in group.places if node not in found[source]]

    def _scopes(self) -> tuple[SetupScope, ...]:
        tasks = self.spec.tasks
        above: list[set[int]] = []
        for task in tasks:  # in topological order
            above.append(set(task.upstream).union(*(above[node] for node in task.upstream)))
        ends = {
            task.node: [
                node for node in self.downstream[task.node] if tasks[node].role == "teardown"
            ]
            for task in tasks
            if task.role == "setup"
        }
        found = []
        for task in tasks:
            setups = [
                node
                for node in sorted(above[task.node])
                if node in ends
                and (not ends[node] or any(task.node in above[end] for end in ends[node]))
            ]
            teardowns = {end for node in setups for end in ends[node] if end != task.node}
            indirect = (node for node in setups if node not in task.upstream)
            found.append(SetupScope(tuple(setups), tuple(indirect), tuple(sorted(teardowns))))
        return tuple(found)

    def with_scopes(self, nodes: Iterable[int]) -> set[int]:
        """Return nodes with the setups that they use and the teardowns of these.

        A setup comes with its teardowns, too.
        """
        wanted = set(nodes)
        for node in list(wanted) if self.scopes else ():
            wanted.update(self.scopes[node].setups, self.scopes[node].teardowns)
        for node in list(wanted) if self.scopes else ():
            if self.spec.tasks[node].role == "setup":
                wanted.update(
                    after
                    for after in self.downstream[node]
                    if self.spec.tasks[after].role == "teardown"
                )
        return wanted

    def _chains(self) -> tuple[tuple[int, ...], ...]:
        chains: dict[int, tuple[int, ...]] = {}
        for task in reversed(self.spec.tasks):
            after = self.downstream[task.node]
            chains[task.node] = ()
            # A chained task would run without the DAG's slot that the manager gives.
            bounded = self.spec.max_active_tasks is not None
            # A failure elsewhere stops what has not begun.
            bounded = bounded or self.spec.fail_fast
            # Beside a failed setup a task runs by its rule alone, and what follows it does not.
            bounded = bounded or bool(
                self.scopes and task.trigger_rule is not TriggerRule.ALL_SUCCESS
            )
            if len(after) == 1 and not bounded and _continues(task, self.spec.tasks[after[0]]):
                chains[task.node] = (after[0], *chains[after[0]])[:LONGEST_CHAIN]
        return tuple(chains[node] for node in range(len(self.spec.tasks)))


def _limits(spec: DagSpec, task: TaskSpec) -> tuple[Limit, ...]:
    found = []
    if spec.max_active_tasks is not None:
        found.append(Limit(f"{DAG}{spec.dag_id}", spec.max_active_tasks))
    if task.pool is not None:
        found.append(Limit(f"{POOL}{task.pool}", weight=task.pool_slots))
    if task.concurrency_key is not None:
        found.append(Limit(f"{KEY}{task.concurrency_key}", task.concurrency_limit))
    if task.rate_limit is not None:
        found.append(Limit(f"{RATE}{task.rate_limit.name}"))
    return tuple(sorted(found))


def _continues(task: TaskSpec, follower: TaskSpec) -> bool:
    return (
        task.role == "task"
        and follower.start_wait is None
        and not follower.depends_on_past
        and not (task.mapped or follower.mapped)
        and task.resources is None
        and follower.resources is None
        and follower.upstream == (task.node,)
        and follower.kind == task.kind
        and follower.queue == task.queue
        and follower.executor == task.executor
        and (task.executor is None or task.executor.name == LOCAL)
        and follower.pool is None
        and follower.concurrency_key is None
        and follower.rate_limit is None
        and follower.trigger_rule
        in (
            TriggerRule.ALL_SUCCESS,
            TriggerRule.ALL_DONE,
            TriggerRule.NONE_FAILED,
            TriggerRule.ALL_DONE_SETUP_SUCCESS,
        )
    )
