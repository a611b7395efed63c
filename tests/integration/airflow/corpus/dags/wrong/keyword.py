from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

with DAG("keyword", schedule=None):
    BashOperator(task_id="a", bash_command="true", shell="zsh")
