from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG
from airflow.sdk import Variable

with DAG("templates_3", schedule="@daily", user_defined_macros={"x": 1}):
    BashOperator(
        task_id="a", bash_command="echo {{ var.json.etl_config.tables }} {{ conn.dw }} {{ params }} {{ macros.uuid }}",
        env={"DAY": "{{ data_interval_end | ds_nodash }}"})
assert Variable
