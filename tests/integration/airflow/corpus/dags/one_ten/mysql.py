from airflow import DAG
from airflow.operators.mysql_operator import MySqlOperator
from airflow.utils.dates import days_ago

dag = DAG('mysql_1_10', default_args={'start_date': days_ago(1)}, schedule_interval='@weekly')
MySqlOperator(task_id='clean', sql='TRUNCATE staging', mysql_conn_id='mysql_shop', dag=dag)
