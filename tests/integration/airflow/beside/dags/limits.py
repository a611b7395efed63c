"""DAGs whose tasks or runs are more than may run at once; no task of them is executed."""

from datetime import timedelta

import pendulum
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

OPTIONS = {"schedule": None, "start_date": pendulum.datetime(2026, 1, 1)}
PARTS = ["one", "two", "three", "four", "five"]


def step(name, **options):
    return BashOperator(task_id=name, bash_command="true", **options)


# No two that wait at once weigh the same: Airflow leaves the order of such ones to its database.
for rule in ("absolute", "downstream", "upstream"):
    with DAG(f"weighted_{rule}", default_args={"weight_rule": rule, "pool": rule}, **OPTIONS):
        step("long", priority_weight=2) >> step("long_2", priority_weight=4) >> step("long_3")
        step("heavy", priority_weight=6) >> step("heavy_2", priority_weight=11)
        step("light", priority_weight=8)
        step("none", priority_weight=0) >> step("none_2", priority_weight=3)

with DAG("weighted_usually", default_args={"pool": "usual"}, **OPTIONS):
    step("short", priority_weight=3)
    step("long") >> step("long_2") >> [step("long_3"), step("long_4", priority_weight=9)]

with DAG("slots", default_args={"pool": "slots", "weight_rule": "absolute"}, **OPTIONS):
    step("two_slots", pool_slots=2, priority_weight=9)
    step("one_slot", priority_weight=8)
    step("last", priority_weight=1)

with DAG("gathering", default_args={"pool": "gathering", "weight_rule": "absolute"}, **OPTIONS):
    step("two_slots", pool_slots=2, priority_weight=9)
    step("three_slots", pool_slots=3, priority_weight=7)
    step("last", priority_weight=1)

with DAG("too_many_slots", default_args={"pool": "too_many"}, **OPTIONS):
    step("four_slots", pool_slots=4, priority_weight=9)
    step("fits", pool_slots=3)

for name, weight in {"shared": 2, "shared_too": 3}.items():
    with DAG(name, default_args={"pool": "shared"}, **OPTIONS):
        step("first", priority_weight=weight) >> step("second", priority_weight=2 * weight)

with DAG("mapped", **OPTIONS):
    BashOperator.partial(task_id="each", pool="mapped").expand(bash_command=PARTS)

with DAG("active_tasks", max_active_tasks=2, **OPTIONS):
    for number in range(4):
        step(f"task_{number}", priority_weight=9 - number)

with DAG("active_in_all_runs", **OPTIONS):
    step("limited", max_active_tis_per_dag=2)
    step("free")

with DAG("active_in_a_run", **OPTIONS):
    BashOperator.partial(task_id="each", max_active_tis_per_dagrun=2).expand(bash_command=PARTS[:3])

with DAG("several_limits", max_active_tasks=3, **OPTIONS):
    BashOperator.partial(
        task_id="each", max_active_tis_per_dag=3, max_active_tis_per_dagrun=2, priority_weight=2
    ).expand(bash_command=PARTS[:3])
    BashOperator.partial(task_id="others", pool="several").expand(bash_command=PARTS[:3])

with DAG("deferred_counts", **OPTIONS):
    BashOperator.partial(task_id="defers", max_active_tis_per_dag=1).expand(bash_command=PARTS[:2])

with DAG("deferred_counts_not", default_args={"pool": "deferring"}, max_active_tasks=1, **OPTIONS):
    step("defers", priority_weight=2)
    step("other")

with DAG("active_runs", max_active_runs=2, **OPTIONS):
    step("first") >> step("second")

with DAG("one_run", max_active_runs=1, **OPTIONS):
    step("first", depends_on_past=True) >> step("second")

for name in ("date_to_come", "to_run_later"):
    with DAG(name, **OPTIONS):
        step("first")

with DAG("timed", dagrun_timeout=timedelta(minutes=5), max_active_tasks=2, **OPTIONS):
    step("done", priority_weight=9) >> step("after")
    step("too_long", priority_weight=8) >> step("not_begun")
    step("waiting", priority_weight=0)
