from datetime import datetime

from airflow import DAG
from airflow.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sensors.external_task import ExternalTaskMarker, ExternalTaskSensor

with DAG("trigger_other_2", schedule="@daily", start_date=datetime(2021, 1, 1), catchup=False):
    go = TriggerDagRunOperator(
        task_id="go", trigger_dag_id="classic_2", execution_date="{{ execution_date }}",
        reset_dag_run=True, wait_for_completion=True)
    wait = ExternalTaskSensor(task_id="wait", external_dag_id="classic_2", deferrable=True)
    mark = ExternalTaskMarker(task_id="mark", external_dag_id="classic_2", external_task_id="run")
    go >> wait >> mark
