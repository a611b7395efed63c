"""Postgres and MySQL."""

from airflow.providers.common.sql.operators.sql import SQLCheckOperator, SQLExecuteQueryOperator
from airflow.providers.mysql.hooks.mysql import MySqlHook
from airflow.providers.postgres.hooks.postgres import PostgresHook
from airflow.sdk import DAG, task

for kind, hook in (("postgres", PostgresHook), ("mysql", MySqlHook)):
    conn = f"{kind}_default"
    with DAG(kind, schedule=None):

        @task
        def rows(hook=hook):
            return [list(row) for row in hook().get_records("SELECT id, name FROM pet ORDER BY id")]

        make = SQLExecuteQueryOperator(
            task_id="make",
            conn_id=conn,
            sql=["DROP TABLE IF EXISTS pet", "CREATE TABLE pet (id int, name varchar(20))"],
        )
        fill = SQLExecuteQueryOperator(
            task_id="fill",
            conn_id=conn,
            sql="INSERT INTO pet VALUES (1, %(name)s), (2, '{{ dag.dag_id }}')",
            parameters={"name": "rex"},
        )
        check = SQLCheckOperator(task_id="check", conn_id=conn, sql="SELECT count(*) = 2 FROM pet")
        make >> fill >> check >> rows()
