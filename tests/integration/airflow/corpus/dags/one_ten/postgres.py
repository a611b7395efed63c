from datetime import datetime

from airflow import DAG
from airflow.operators.postgres_operator import PostgresOperator

with DAG('postgres_1_10', start_date=datetime(2019, 1, 1), schedule_interval='@daily') as dag:
    create = PostgresOperator(
        task_id='create_table',
        postgres_conn_id='warehouse',
        sql='CREATE TABLE IF NOT EXISTS orders (id int)',
        database='sales',
        autocommit=True,
    )
    load = PostgresOperator(
        task_id='load',
        sql="DELETE FROM orders WHERE day = '{{ ds }}'",
        params={'day': 1},
    )
    create >> load
