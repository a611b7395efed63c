"""DAGs whose first failure stops all else; one task after the other, as `dag.test()` runs them."""

import pendulum
from airflow.exceptions import AirflowSkipException
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, setup, task, task_group, teardown

OPTIONS = {"schedule": None, "start_date": pendulum.datetime(2026, 1, 1), "fail_fast": True}


@task
def good(value=1):
    return value


@task
def bad(value=1):
    raise RuntimeError("bad")


@task
def skipped():
    raise AirflowSkipException


@task
def listed():
    return [1, 2]


@setup
def make():
    return 1


@setup
def make_bad():
    raise RuntimeError("setup")


@teardown
def drop():
    return 2


@teardown(on_failure_fail_dagrun=True)
def drop_bad():
    raise RuntimeError("teardown")


with DAG("fast_chain", **OPTIONS):
    good() >> bad() >> EmptyOperator(task_id="after") >> good.override(task_id="last")()

with DAG("fast_end", **OPTIONS):
    good() >> EmptyOperator(task_id="middle") >> bad()

with DAG("fast_retried", **OPTIONS):
    bad.override(retries=1, retry_delay=0)() >> good()

with DAG("fast_scope", **OPTIONS):
    made, work, gone = make(), bad(), drop.override(task_id="drop")()
    made >> work >> EmptyOperator(task_id="rest") >> gone
    made >> gone >> EmptyOperator(task_id="behind")

with DAG("fast_setup", **OPTIONS):
    made, work, gone = make_bad(), good(), drop.override(task_id="clean")()
    made >> work >> gone
    made >> gone

with DAG("fast_teardown", **OPTIONS):
    made, work, gone = make(), good(), drop_bad()
    made >> work >> gone >> EmptyOperator(task_id="behind")
    made >> gone

with DAG("fast_mapped", **OPTIONS):
    found = listed()
    good.override(task_id="before")() >> found
    failing = bad.override(task_id="each").expand(value=found)
    after = good.override(task_id="double").expand(value=failing)
    after >> EmptyOperator(task_id="last")

with DAG("fast_unmapped", **OPTIONS):
    stop = bad()
    found = listed()
    stop >> found
    good.override(task_id="each").expand(value=found)
    good.override(task_id="both").expand(value=[1, 2]) << found


@task_group
def members(x):
    bad.override(task_id="first")(x) >> good.override(task_id="second")(x)


with DAG("fast_group", **OPTIONS):
    listed() >> members.expand(x=[1]) >> EmptyOperator(task_id="last")

with DAG("fast_group_of_result", **OPTIONS):
    bad() >> listed() >> members.expand(x=[1, 2]) >> EmptyOperator(task_id="last")

with DAG("fast_skip", **OPTIONS):
    skipped() >> EmptyOperator(task_id="left") >> good()
