"""Questions about what runs beside, about runs of another DAG, and kept values."""

import time
from datetime import UTC, datetime, timedelta

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.providers.standard.sensors.external_task import ExternalTaskSensor
from airflow.sdk import DAG, Asset, AssetAlias, Variable, task, task_group
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance as Instance

DAY = datetime(2026, 5, 6, tzinfo=UTC)
ORDERS = Asset("s3://lake/orders")
SECONDS = 300


def until(look):
    """Look until there is something; tasks of one run that wait for one another run beside."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        found = look()
        if found is not None:
            return found
        time.sleep(0.05)
    raise TimeoutError("nothing has come")


with DAG("beside", schedule=None):

    @task(retries=1, retry_delay=timedelta(0))
    def pushes(ti):
        store = context_of(ti).get("task_state_store")
        if store is not None:
            store.set("tries", (store.get("tries") or 0) + 1)
        if ti.try_number == 1:
            ti.xcom_push("early", "of the attempt before")
            raise RuntimeError("once")
        ti.xcom_push("early", {"n": 1})
        ti.xcom_push("gone", 1)
        heard = until(lambda: Variable.get(f"heard_{ti.run_id}", default=None))
        return [heard, None if store is None else store.get("tries")]

    @task
    def hears(ti):
        found = until(lambda: found if (found := early(ti)) == {"n": 1} else None)
        Variable.set(f"heard_{ti.run_id}", str(found["n"] + 1))
        return found

    def early(ti):
        return ti.xcom_pull(task_ids="pushes", key="early")

    def context_of(ti):
        return ti.get_template_context()

    @task
    def after(ti):
        name = f"heard_{ti.run_id}"
        Variable.set(name, {"a": [1]}, serialize_json=True)
        found = Variable.get(name, deserialize_json=True)
        Variable.delete(name)
        return [found, Variable.get(name, default="gone")]

    [pushes(), hears()] >> after()


with DAG("looked_at", schedule=None, params={"fail": False}):

    @task_group
    def group():
        @task
        def one():
            time.sleep(0.3)

        @task
        def two(params=None):
            if params["fail"]:
                raise RuntimeError("as it was told")

        one() >> two()

    group()


with DAG("looks", schedule=None):
    more = {"external_dag_id": "looked_at", "execution_date_fn": lambda _: DAY, "timeout": SECONDS}
    poked = ExternalTaskSensor(
        task_id="poked", external_task_id="group.two", poke_interval=0.1, **more
    )
    rescheduled = ExternalTaskSensor(
        task_id="rescheduled",
        external_task_group_id="group",
        poke_interval=0.2,
        mode="reschedule",
        **more,
    )
    deferred = ExternalTaskSensor(
        task_id="deferred", deferrable=True, poke_interval=0.1, allowed_states=["success"], **more
    )
    waited = TriggerDagRunOperator(
        task_id="waited",
        trigger_dag_id="looked_at",
        logical_date=DAY,
        trigger_run_id="first",
        wait_for_completion=True,
        poke_interval=1,
    )
    again = TriggerDagRunOperator(
        task_id="again",
        trigger_dag_id="looked_at",
        trigger_run_id="first",
        skip_when_already_exists=True,
    )
    fails = TriggerDagRunOperator(
        task_id="fails",
        trigger_dag_id="looked_at",
        conf={"fail": True},
        wait_for_completion=True,
        deferrable=True,
        poke_interval=30,
    )

    @task
    def states(ti):
        run = {"dag_id": "looked_at", "run_ids": ["first"]}
        return [
            Instance.get_dagrun_state("looked_at", "first"),
            Instance.get_dr_count(**run, states=["success"]),
            Instance.get_ti_count(**run, states=["success"]),
            Instance.get_task_states(**run, task_group_id="group"),
            ti.xcom_pull(task_ids="waited", key="trigger_run_id"),
        ]

    waited >> [again, states()]


with DAG("inlets", schedule=None):

    @task(inlets=[ORDERS, AssetAlias("daily")])
    def reads(inlet_events):
        return [
            [event.extra["rows"] for event in inlet_events[ORDERS]],
            [event.extra["n"] for event in inlet_events[AssetAlias("daily")]],
        ]

    reads()
