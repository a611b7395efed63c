from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

with DAG("template_file", schedule=None):
    BashOperator(task_id="a", bash_command="no_such_script.sh")
