from datetime import datetime

from airflow import DAG
from airflow.models.xcom import XCOM_RETURN_KEY
from airflow.operators.python import PythonOperator, get_current_context


def push(ti):
    ti.xcom_push(key="total", value=3)


def pull(ti=None, execution_date=None, **context):
    print(ti.xcom_pull(key="total"), execution_date, context["yesterday_ds_nodash"], XCOM_RETURN_KEY)
    print(get_current_context()["ds"], context.get("next_execution_date"))


with DAG("xcom_key_2", schedule="@daily", start_date=datetime(2022, 1, 1)):
    PythonOperator(task_id="push", python_callable=push) >> PythonOperator(task_id="pull", python_callable=pull)
