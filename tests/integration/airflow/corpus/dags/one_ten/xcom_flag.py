from airflow import DAG
from airflow.operators.bash_operator import BashOperator
from airflow.utils.dates import days_ago

with DAG('xcom_flag', default_args={'owner': 'x'}, start_date=days_ago(1), schedule_interval=None) as dag:
    listing = BashOperator(task_id='listing', bash_command='ls /', xcom_push=True)
    show = BashOperator(
        task_id='show', bash_command='echo "{{ ti.xcom_pull(task_ids=\'listing\') }}"')
    listing >> show
