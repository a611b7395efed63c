from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Variable

with DAG("variable_default_3", schedule=Variable.get("not_there", default="@daily")):
    EmptyOperator(task_id="a")
