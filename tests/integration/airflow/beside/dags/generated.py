"""DAGs made at random from numbers, the same ones on both sides.

Tasks succeed, fail, are skipped or retried; are plain, mapped over a list, a result or both;
branch, stop, set up and tear down; and stand in mapped groups. All trigger rules occur.
"""

import random

import pendulum
from airflow.exceptions import AirflowFailException, AirflowSkipException
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.python import BranchPythonOperator, ShortCircuitOperator
from airflow.sdk import DAG, setup, task, task_group, teardown

RULES = (
    "all_failed", "all_done", "one_success", "one_failed", "none_failed",
    "none_failed_min_one_success", "none_skipped", "one_done", "all_skipped",
    "all_done_min_one_success", "always",
)  # fmt: skip
ENDS = ("ok", "ok", "ok", "fail", "skip")


def ended(end, value):
    if end == "fail":
        raise AirflowFailException
    if end == "skip":
        raise AirflowSkipException
    return value


@task
def plain(end, value):
    return ended(end, value)


@task
def each(end, value=0):
    return ended(end, [end, value])


@task
def several(end, length):
    return ended(end, [("ok", "ok", "skip", "fail")[n % 4] for n in range(length)])


@task
def seen(ti=None):
    """Return what tasks before it have left, in their order."""
    before = sorted(ti.task.upstream_task_ids)
    return [ti.xcom_pull(task_ids=name) for name in before]


@setup
def make(end):
    return ended(end, "made")


@teardown
def drop(end):
    return ended(end, "dropped")


class Maker:
    """Makes one DAG."""

    def __init__(self, number):
        self.pick = random.Random(number)
        self.made = []
        self.sources = []

    def rule(self, *, mapped=False):
        """Return a rule; those that Airflow refuses, or decides early, in groups are last."""
        rules = RULES[:-2] if mapped else RULES
        return "all_success" if self.pick.random() < 0.45 else self.pick.choice(rules)

    def end(self):
        return self.pick.choice(ENDS)

    def fill(self):
        kinds = ["plain", "plain", "empty", "mapped", "mapped", "of_result", "source", "branch"]
        kinds += ["stop", "scope", "group", "seen"]
        for number in range(self.pick.randint(4, 9)):
            kind = self.pick.choice(kinds)
            getattr(self, kind)(f"{kind}_{number}")

    def after(self, *nodes, most=3):
        """Put what was made behind some of what was made before."""
        before = self.pick.sample(self.made, min(len(self.made), self.pick.randint(0, most)))
        for node in nodes[:1]:
            for one in before:
                one >> node
        self.made += nodes

    def plain(self, name):
        self.after(plain.override(task_id=name, trigger_rule=self.rule())(self.end(), name))

    def empty(self, name):
        self.after(EmptyOperator(task_id=name, trigger_rule=self.rule()))

    def seen(self, name):
        # What it sees is certain only if its rule waits for all that is before it.
        rule = self.pick.choice(("all_done", "none_failed", "none_skipped"))
        self.after(seen.override(task_id=name, trigger_rule=rule)())

    def mapped(self, name):
        ends = [self.end() for _ in range(self.pick.randint(0, 3))]
        made = each.override(task_id=name, trigger_rule=self.rule())
        more = {"value": [1, 2]} if self.pick.random() < 0.2 else {}
        self.after(made.expand(end=ends, **more))

    def source(self, name):
        rule = "all_success" if self.pick.random() < 0.7 else "all_done"
        made = several.override(task_id=name, trigger_rule=rule)(
            self.end(), self.pick.randint(0, 4)
        )
        self.sources.append(made)
        self.after(made)

    def of_result(self, name):
        if not self.sources:
            self.source(name)
            return
        found = self.pick.choice(self.sources)
        if self.pick.random() < 0.4:
            found = found.concat(self.pick.choice(self.sources))
        made = each.override(task_id=name, trigger_rule=self.rule(mapped=True))
        self.after(made.expand(end=found))

    def branch(self, name):
        chosen = [plain.override(task_id=f"{name}_{n}")(self.end(), n) for n in range(3)]
        picked = [f"{name}_{n}" for n in range(3) if self.pick.random() < 0.5]
        fork = BranchPythonOperator(task_id=name, python_callable=lambda: picked)
        fork >> chosen
        self.after(fork, *chosen, most=1)

    def stop(self, name):
        goes_on = self.pick.random() < 0.4
        fork = ShortCircuitOperator(
            task_id=name,
            python_callable=lambda: goes_on,
            ignore_downstream_trigger_rules=self.pick.random() < 0.5,
        )
        self.after(fork, most=1)

    def scope(self, name):
        made = make.override(task_id=f"{name}_make")(self.end())
        inner = plain.override(task_id=f"{name}_work", trigger_rule=self.rule())(self.end(), name)
        last = EmptyOperator(task_id=f"{name}_last", trigger_rule=self.rule())
        gone = drop.override(task_id=f"{name}_drop")(self.pick.choice(["ok", "ok", "fail"]))
        made >> inner >> last >> gone
        made >> gone
        self.after(made, inner, last, gone, most=1)

    def group(self, name):
        rules = [self.rule(mapped=True) for _ in range(3)]

        @task_group(group_id=name)
        def members(x):
            first = each.override(task_id="first", trigger_rule=rules[0])(x)
            second = plain.override(task_id="second", trigger_rule=rules[1])("ok", name)
            third = EmptyOperator(task_id="third", trigger_rule=rules[2])
            first >> second >> third
            if len(name) % 2:
                first >> third

        values = [self.end() for _ in range(self.pick.randint(0, 3))]
        if self.sources and self.pick.random() < 0.5:
            values = self.pick.choice(self.sources)
        made = members.expand(x=values)
        after = EmptyOperator(task_id=f"{name}_after", trigger_rule=self.rule())
        made >> after
        self.after(made, after, most=1)


NUMBERS = range(1)
for number in NUMBERS:
    with DAG(f"generated_{number:05}", schedule=None, start_date=pendulum.datetime(2026, 1, 1)):
        Maker(number).fill()
