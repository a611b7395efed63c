import json
from datetime import datetime
from pathlib import Path

from airflow import DAG
from airflow.operators.bash import BashOperator

for entry in json.loads(Path(__file__).with_name("tables.json").read_text()):
    with DAG(
        f"load_{entry['table']}", schedule=entry["schedule"], start_date=datetime(2021, 1, 1),
        tags=["generated"], catchup=True,
    ) as dag:
        for step in entry["steps"]:
            BashOperator(task_id=step, bash_command=f"echo {step}", pool=entry.get("pool", "default_pool"))
    globals()[dag.dag_id] = dag
