from datetime import datetime

from airflow import DAG
from airflow.models.baseoperator import BaseOperator, chain, cross_downstream
from airflow.operators.empty import EmptyOperator


class Builder:
    def __init__(self, name):
        self.dag = DAG(name, schedule="@daily", start_date=datetime(2021, 1, 1), owner_links={"x": "https://example.com"})

    def build(self):
        with self.dag:
            tasks = [EmptyOperator(task_id=f"t{i}", owner="x") for i in range(6)]
            chain(*tasks[:2])
            cross_downstream(tasks[2:4], tasks[4:])
        return self.dag


assert BaseOperator
built = Builder("built_2").build()
