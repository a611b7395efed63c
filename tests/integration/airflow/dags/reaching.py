"""What a task reaches: templates, kept values, other runs and DAGs, the run before, policies."""

from datetime import timedelta

from airflow import sdk
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, Asset, BaseOperator, Variable, task
from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

STORED = Asset("s3://lake/stored")

with DAG("reached", schedule=None, tags=["looked_at"]):

    @task
    def value(ti):
        before, earlier = ti.get_previous_dagrun(), ti.get_previous_ti()
        if before is None:
            ti.xcom_push("kept", 7)
        kept = ti.xcom_pull(task_ids="value", key="kept", include_prior_dates=True)
        return [before and before.run_id, earlier and str(earlier.state), kept]

    value()


class ReadsVariable(BaseTrigger):
    def serialize(self):
        return "reaching.ReadsVariable", {}

    async def run(self):
        yield TriggerEvent(await sync_to_async(Variable.get)("region"))


class Waits(BaseOperator):
    def execute(self, context):
        self.defer(trigger=ReadsVariable(), method_name="resumed")

    def resumed(self, context, event):
        return event


with DAG("reaches", schedule=None, params={"run_id": ""}):
    BashOperator(task_id="templated", bash_command="said.sh")
    Waits(task_id="trigger")

    @task
    def other(ti, params=None):
        found = ti.xcom_pull(dag_id="reached", task_ids="value", run_id=params["run_id"])
        known = ti.get_dag("reached")
        return [found, known.tags, known.is_paused]

    @task(outlets=[STORED])
    def keeps(**context):
        """Names of variables, and values of assets, where the release has them."""
        Variable.set("reaching_a", "1")
        Variable.set("reaching_b", "2")
        names = getattr(Variable, "keys", lambda prefix: ["reaching_a", "reaching_b"])
        store = context.get("asset_state_store")
        if store is not None:
            store[STORED].set("mark", {"row": 3})
        return [
            sorted(names(prefix="reaching_")),
            {"row": 3} if store is None else store[STORED].get("mark"),
        ]

    other(), keeps()

# Releases before 3.3 have none.
if hasattr(sdk, "RetryPolicy"):

    class Hurried(sdk.RetryPolicy):
        """A first failure is tried again at once, a second one not at all."""

        def evaluate(self, exception, try_number, max_tries, context=None):
            if try_number == 1:
                return sdk.RetryDecision.retry(timedelta(0))
            return sdk.RetryDecision.fail("twice is enough")

    with DAG("hurried", schedule=None):

        @task(retries=5, retry_delay=timedelta(hours=1), retry_policy=Hurried())
        def fails(ti):
            raise RuntimeError(ti.try_number)

        fails()
