"""Where Airflow's own result depends on the order in which tasks end, or is one of its errors."""

from pubsubflow.authoring.dag import DAG
from pubsubflow.model.runs.plan import Plan
from pubsubflow.model.spec import TaskSpec, TriggerRule
from support.airflow_beside import Outcome, task_of

_BAD = {"failed", "upstream_failed"}
_FORKS = ("branch", "short_circuit")
_MENDED = {
    TriggerRule.ONE_SUCCESS,
    TriggerRule.ONE_FAILED,
    TriggerRule.ONE_DONE,
    TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS,
}


def racy_tasks(dag: DAG, outcomes: list[Outcome]) -> set[str]:
    """Return the tasks that may end in several ways by Airflow, with all that follows them.

    - One that sees a failure and a skip ends by what the scheduler sees first, and so does one that
      a branch leaves out where something else before it has failed.
    - One that is mapped over what was skipped or failed: two rules are asked in the order of a set.
    - One that is mapped, below a short circuit: it is skipped only if it was not expanded before.

    Args:
        dag: The DAG.
        outcomes: Its ends.
    """
    plan = Plan(dag.to_spec("", ""))
    racy = [task.node for task in plan.spec.tasks for each in outcomes if _racy(plan, task, each)]
    return _with_followers(plan, racy)


def mended_tasks(dag: DAG) -> set[str]:
    """Return the tasks that Airflow 3.2 ends otherwise than later releases, with all that follows.

    Those of a mapped group, with a rule that some instances can decide: there instances look at all
    indexes rather than their own, or leave an instance without index behind, which skips others.

    Args:
        dag: The DAG.
    """
    plan = Plan(dag.to_spec("", ""))
    mended = [
        task.node for task in plan.spec.tasks if task.map_group and task.trigger_rule in _MENDED
    ]
    return _with_followers(plan, mended)


def _with_followers(plan: Plan, waiting: list[int]) -> set[str]:
    reached: set[int] = set()
    while waiting:
        node = waiting.pop()
        if node not in reached:
            reached.add(node)
            waiting += plan.concerned[node]
    return {plan.spec.tasks[node].task_id for node in reached}


def _racy(plan: Plan, task: TaskSpec, outcome: Outcome) -> bool:
    tasks = plan.spec.tasks
    before = set(task.upstream)
    if plan.scopes:
        before.update(plan.scopes[task.node].indirect_setups)
    seen = _ends(plan, before, outcome)
    above = {tasks[node].role for node in _above(plan, task.node)}
    if seen & _BAD and ("skipped" in seen or above & set(_FORKS)):
        return True
    if task.mapped and "short_circuit" in above:
        return True
    sources = {node for each in task.mapped_arguments for node in each.sources()}
    usual = task.trigger_rule is TriggerRule.ALL_SUCCESS
    return not usual and bool(_ends(plan, sources, outcome) - {"success"})


def _ends(plan: Plan, nodes: set[int], outcome: Outcome) -> set[str]:
    ids = {plan.spec.tasks[node].task_id for node in nodes}
    return {state for name, state in outcome.states.items() if task_of(name) in ids}


def _above(plan: Plan, node: int) -> set[int]:
    found: set[int] = set()
    waiting = list(plan.spec.tasks[node].upstream)
    while waiting:
        each = waiting.pop()
        if each not in found:
            found.add(each)
            waiting += plan.spec.tasks[each].upstream
    return found
