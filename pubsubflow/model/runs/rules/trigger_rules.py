"""Trigger rules: whether a task starts, given how its upstream nodes have ended.

An upstream node that is mapped counts as one task, in the state that it has as a whole, unless a
rule says otherwise, or the DAG counts instances: then it counts as all of its instances.
"""

from collections.abc import Callable, Sequence

from pubsubflow.model.runs.node_progress import NodeProgress, all_complete
from pubsubflow.model.runs.states import TaskState
from pubsubflow.model.spec import TriggerRule


def evaluate_rule(
    rule: TriggerRule,
    upstream: Sequence[NodeProgress],
    setups: Sequence[NodeProgress] = (),
    *,
    by_instance: bool = False,
) -> TaskState | None:
    """Evaluate a trigger rule over the states of the upstream nodes.

    Args:
        rule: The rule.
        upstream: All upstream nodes.
        setups: Those of them that are setups.
        by_instance: Whether a mapped node counts as its instances.

    Returns:
        QUEUED when the task may start, SKIPPED or UPSTREAM_FAILED when it never will, None while
        that is open. Only the `one_…` rules decide before all upstream nodes are complete, so the
        result does not depend on the order in which they end.
    """
    if not upstream or rule is TriggerRule.ALWAYS:
        return TaskState.QUEUED
    eager = _EAGER.get(rule)
    if eager is not None and any(map(eager, upstream)):
        return TaskState.QUEUED
    if not all_complete(upstream):
        return None
    if rule is TriggerRule.ALL_DONE_SETUP_SUCCESS:
        return _after_setups(setups)
    return _evaluate_complete(rule, upstream, by_instance)


def waits_for_more(
    rule: TriggerRule, nodes: Sequence[NodeProgress], upstream: Sequence[int]
) -> bool:
    """Return whether it is certain, without all upstream nodes being read, that a rule is open.

    Of thousands of upstream nodes that end one by one the first or one of the last is incomplete
    nearly always: each end costs the same then, however many there are.

    Args:
        rule: The rule.
        nodes: The progress of all nodes.
        upstream: Which of them are upstream.
    """
    if rule in _EAGER or rule is TriggerRule.ALWAYS or not upstream:
        return False
    if not nodes[upstream[0]].complete:
        return True
    return any(not nodes[number].complete for number in reversed(upstream))


def decides_over_instances(rule: TriggerRule) -> bool:
    """Return whether a rule needs some of all instances, and not something of each."""
    return rule in _EAGER or rule is TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS


_EAGER: dict[TriggerRule, Callable[[NodeProgress], int]] = {
    TriggerRule.ONE_SUCCESS: lambda entry: entry.success,
    TriggerRule.ONE_FAILED: lambda entry: entry.failed or entry.upstream_failed,
    TriggerRule.ONE_DONE: lambda entry: entry.success or entry.failed,
}
"""Rules that one instance can decide → whether a node has such an instance."""


def _after_setups(setups: Sequence[NodeProgress]) -> TaskState:
    """Return whether a teardown runs: if one of its setups succeeded, or it has none."""
    setups = [entry for entry in setups if entry.total]
    if not setups or any(entry.success for entry in setups):
        return TaskState.QUEUED
    skipped = all(entry.state is TaskState.SKIPPED for entry in setups)
    return TaskState.SKIPPED if skipped else TaskState.UPSTREAM_FAILED


def _evaluate_complete(
    rule: TriggerRule,
    upstream: Sequence[NodeProgress],
    by_instance: bool,  # noqa: FBT001 - on the path of each task
) -> TaskState:
    return _COMPLETE[rule](_Instances(upstream) if by_instance else _Ends(upstream))


class _Ends:
    """The ends of upstream nodes that are all complete.

    Attributes:
        success, failed, skipped: Whether any node ended so.
    """

    def __init__(self, upstream: Sequence[NodeProgress]) -> None:
        states = {entry.state for entry in upstream}
        self.success = TaskState.SUCCESS in states
        self.failed = bool(states & {TaskState.FAILED, TaskState.UPSTREAM_FAILED})
        self.skipped = TaskState.SKIPPED in states
        self._upstream = upstream

    @property
    def instance_skipped(self) -> bool:
        """Whether any instance of a node was skipped."""
        return any(entry.skipped for entry in self._upstream)

    @property
    def instance_succeeded(self) -> bool:
        """Whether any instance of a node succeeded."""
        return any(entry.success for entry in self._upstream)


class _Instances(_Ends):
    """The ends of all instances of upstream nodes that are all complete."""

    def __init__(self, upstream: Sequence[NodeProgress]) -> None:
        self._upstream = upstream
        self.success = self.instance_succeeded
        self.failed = any(entry.failed or entry.upstream_failed for entry in upstream)
        self.skipped = self.instance_skipped


def _run_or_skip(*, run: bool) -> TaskState:
    return TaskState.QUEUED if run else TaskState.SKIPPED


def _unless_failed(ends: _Ends, *, run: bool) -> TaskState:
    return TaskState.UPSTREAM_FAILED if ends.failed else _run_or_skip(run=run)


def _one_of_all_done(ends: _Ends) -> TaskState:
    # A skipped task counts as one that was not done.
    if ends.instance_skipped:
        return TaskState.SKIPPED
    return TaskState.QUEUED if ends.instance_succeeded else TaskState.UPSTREAM_FAILED


_COMPLETE: dict[TriggerRule, Callable[[_Ends], TaskState]] = {
    TriggerRule.ALL_DONE: lambda _: TaskState.QUEUED,
    TriggerRule.ALL_SUCCESS: lambda ends: _unless_failed(ends, run=not ends.skipped),
    TriggerRule.ALL_FAILED: lambda ends: _run_or_skip(run=not (ends.success or ends.skipped)),
    TriggerRule.ALL_SKIPPED: lambda ends: _run_or_skip(run=not (ends.success or ends.failed)),
    TriggerRule.NONE_FAILED: lambda ends: _unless_failed(ends, run=True),
    TriggerRule.NONE_SKIPPED: lambda ends: _run_or_skip(run=not ends.instance_skipped),
    TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS: lambda ends: _unless_failed(ends, run=ends.success),
    TriggerRule.ALL_DONE_MIN_ONE_SUCCESS: _one_of_all_done,
    # That none of these has started means that no upstream task ended as it should.
    TriggerRule.ONE_SUCCESS: lambda ends: _unless_failed(ends, run=False),
    TriggerRule.ONE_FAILED: lambda _: TaskState.SKIPPED,
    TriggerRule.ONE_DONE: lambda _: TaskState.SKIPPED,
}
