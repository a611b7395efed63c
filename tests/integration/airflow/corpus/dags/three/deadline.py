from datetime import timedelta

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, AsyncCallback, DeadlineAlert, DeadlineReference


async def late():
    print("late")


with DAG(
    "deadline_3", schedule="@daily",
    deadline=DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT, interval=timedelta(minutes=30), callback=AsyncCallback(late)),
):
    EmptyOperator(task_id="a")
