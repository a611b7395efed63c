from datetime import datetime

from airflow import DAG
from airflow.decorators import task, task_group
from airflow.operators.bash import BashOperator

with DAG(dag_id="mapping_2", start_date=datetime(2022, 3, 4), schedule=None) as dag:

    @task
    def add_one(x: int):
        return x + 1

    @task
    def sum_it(values):
        print(sum(values))

    @task_group
    def doubled(x):
        add_one.override(task_id="again")(x)

    added = add_one.expand(x=[1, 2, 3])
    sum_it(added)
    doubled.expand(x=added)
    BashOperator.partial(task_id="bash", do_xcom_push=False).expand(bash_command=["echo 1", "echo 2"])
    BashOperator.partial(task_id="kw").expand_kwargs([{"bash_command": "true", "env": {"A": "1"}}])
