from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, Connection, Variable

with DAG("environment_3", schedule="@daily"):
    BashOperator(task_id="a", bash_command=f"echo {Variable.get('from_env')} {Connection.get('from_env').host}")
