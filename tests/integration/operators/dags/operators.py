"""Operators as a daemon runs them."""

import os
from datetime import timedelta
from pathlib import Path

from pubsubflow import (
    DAG,
    Context,
    ExternalTaskSensor,
    HttpOperator,
    SqlOperator,
    TriggerDagRunOperator,
    dag,
    task,
)
from pubsubflow.operators import DockerOperator

with DAG("child", params={"n": 0, "mark": ""}):

    @task
    def work(ctx: Context) -> int:
        mark = ctx.run.params["mark"]
        if mark and not Path(mark).exists():
            Path(mark).touch()
            raise RuntimeError("the first one fails")
        return ctx.run.params["n"]

    work()

with DAG("parent", params={"mark": ""}):
    started = TriggerDagRunOperator(
        task_id="start",
        dag_id="child",
        params={"n": 7, "mark": "{{ run.params.mark }}"},
        wait=True,
        retries=1,
    )

with DAG("starter"):
    TriggerDagRunOperator(task_id="start", dag_id="child", run_key="once")

with DAG("grandparent"):
    TriggerDagRunOperator(task_id="begin", dag_id="parent", wait=True)

with DAG("lost"):
    TriggerDagRunOperator(task_id="start", dag_id="no-such-dag")

with DAG("watcher"):
    ExternalTaskSensor(
        task_id="see",
        external_dag_id="child",
        external_task_id="work",
        allowed_states=("success", "failed"),
        since=timedelta(hours=1),
    )

with DAG("hour_later"):
    ExternalTaskSensor(task_id="see", external_dag_id="child", execution_delta=timedelta(hours=1))

with DAG("from_env"):

    @task
    def host(ctx: Context) -> str:
        found = ctx.connection("from-env")
        print("as", found.url)
        return f"{found.user}@{found.host}"

    host()

with DAG("sql", params={"who": "ann"}):
    SqlOperator(
        task_id="read",
        sql="SELECT '{{ params.who }}'::text AS who, $body$:x$body$ AS body, {{ 1 + 1 }}::int",
        connection="warehouse",
    )
    SqlOperator(
        task_id="slow", sql="SELECT pg_sleep(600)", connection="warehouse", statement_timeout=0.5
    )

with DAG("endless", params={"lock": 0}):
    SqlOperator(
        task_id="sleep",
        sql=["SELECT pg_advisory_xact_lock({{ params.lock }}::bigint)", "SELECT pg_sleep(600)"],
        connection="warehouse",
    )


class TellingOperator(DockerOperator):
    """Tells its engine in which process it runs."""

    async def execute(self, ctx: Context) -> str:
        self.environment = {"PID": str(os.getpid())}
        return await super().execute(ctx)


with DAG("container"):
    TellingOperator(task_id="run", image="here", connection="engine")


@dag
def accepted():
    HttpOperator(task_id="job", method="POST", endpoint="submit", interval=timedelta(seconds=0.2))
