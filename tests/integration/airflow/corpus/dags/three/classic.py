from datetime import datetime

from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, Label, TaskGroup, chain

with DAG("classic_3", schedule="0 6 * * *", start_date=datetime(2025, 1, 1), catchup=True):
    a = EmptyOperator(task_id="a")
    with TaskGroup("g"):
        b = BashOperator(task_id="b", bash_command="echo {{ ds }} {{ logical_date }}")
        c = PythonOperator(task_id="c", python_callable=print)
    a >> Label("next") >> b
    chain(b, c)
