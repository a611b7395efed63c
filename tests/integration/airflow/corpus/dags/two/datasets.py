import pendulum

from airflow import DAG, Dataset
from airflow.operators.bash import BashOperator

dag1_dataset = Dataset("s3://dag1/output_1.txt", extra={"hi": "bye"})
dag2_dataset = Dataset("s3://dag2/output_1.txt", extra={"hi": "bye"})

with DAG("produces_2", start_date=pendulum.datetime(2021, 10, 1), schedule="@daily", catchup=False):
    BashOperator(outlets=[dag1_dataset], task_id="producing_task_1", bash_command="sleep 5")

with DAG("consumes_2", start_date=pendulum.datetime(2021, 10, 1), schedule=[dag1_dataset, dag2_dataset]):
    BashOperator(
        task_id="consuming", bash_command="echo '{{ triggering_dataset_events }}'",
        outlets=[Dataset("s3://consuming_1_task/dataset_other.txt")])
