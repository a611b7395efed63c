from datetime import datetime

from airflow import DAG
from airflow.operators.empty import EmptyOperator
from airflow.utils.edgemodifier import Label
from airflow.utils.task_group import TaskGroup

with DAG("modern_2", schedule="@daily", start_date=datetime(2023, 1, 1), catchup=False):
    start = EmptyOperator(task_id="start")
    with TaskGroup("section_1", tooltip="Tasks for section 1") as section_1:
        a = EmptyOperator(task_id="a")
        b = EmptyOperator(task_id="b")
        with TaskGroup("inner"):
            c = EmptyOperator(task_id="c")
        a >> Label("then") >> b >> c
    end = EmptyOperator(task_id="end")
    start >> section_1 >> end
