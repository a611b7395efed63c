from datetime import datetime

from airflow import DAG
from airflow.decorators import setup, task, teardown
from airflow.operators.bash import BashOperator

with DAG("setup_teardown_2", schedule=None, start_date=datetime(2023, 7, 1)):
    create = BashOperator(task_id="create", bash_command="true").as_setup()
    work = BashOperator(task_id="work", bash_command="true")
    drop = BashOperator(task_id="drop", bash_command="true").as_teardown(setups=create)
    create >> work >> drop

    @setup
    def make():
        return 1

    @task
    def use():
        pass

    @teardown(on_failure_fail_dagrun=True)
    def clean():
        pass

    with make() >> clean():
        use()
