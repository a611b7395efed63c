from datetime import datetime

from airflow import DAG
from airflow.notifications.basenotifier import BaseNotifier
from airflow.operators.empty import EmptyOperator
from airflow.operators.python import PythonOperator


class Shout(BaseNotifier):
    template_fields = ("message",)

    def __init__(self, message):
        super().__init__()
        self.message = message

    def notify(self, context):
        print(self.message)


def failed(context):
    print(context["task_instance"].task_id, context.get("exception"))


with DAG(
    "callbacks_2",
    schedule="@daily",
    start_date=datetime(2023, 1, 1),
    default_args={"on_failure_callback": failed, "email": ["a@example.com"], "email_on_failure": True},
    on_failure_callback=[failed],
    on_success_callback=Shout("{{ dag.dag_id }}"),
):
    EmptyOperator(task_id="a", on_success_callback=[failed])
    PythonOperator(task_id="b", python_callable=print, on_retry_callback=failed, on_execute_callback=Shout("x"))
