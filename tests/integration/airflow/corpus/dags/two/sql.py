from datetime import datetime

from airflow import DAG
from airflow.operators.sql import BranchSQLOperator
from airflow.providers.common.sql.operators.sql import SQLColumnCheckOperator, SQLExecuteQueryOperator, SQLTableCheckOperator
from airflow.sensors.sql import SqlSensor

with DAG("sql_2", schedule="@daily", start_date=datetime(2022, 1, 1), catchup=False):
    run = SQLExecuteQueryOperator(task_id="run", conn_id="dw", sql="SELECT 1", split_statements=True)
    columns = SQLColumnCheckOperator(
        task_id="columns", conn_id="dw", table="t", column_mapping={"id": {"null_check": {"equal_to": 0}}})
    table = SQLTableCheckOperator(
        task_id="table", conn_id="dw", table="t", checks={"rows": {"check_statement": "COUNT(*) > 0"}})
    wait = SqlSensor(task_id="wait", conn_id="dw", sql="SELECT 1")
    branch = BranchSQLOperator(
        task_id="branch", conn_id="dw", sql="SELECT 1", follow_task_ids_if_true="run", follow_task_ids_if_false="columns")
    wait >> branch >> [run, columns]
    run >> table
