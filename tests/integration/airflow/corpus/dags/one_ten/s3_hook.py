from datetime import datetime

from airflow import DAG
from airflow.hooks.S3_hook import S3Hook
from airflow.operators.python_operator import PythonOperator


def list_keys():
    hook = S3Hook(aws_conn_id='aws_credentials')
    for key in hook.list_keys('udacity-dend', prefix='data-pipelines'):
        print(key)


dag = DAG('s3_list', start_date=datetime(2018, 1, 1))
PythonOperator(task_id='list_keys', python_callable=list_keys, dag=dag)
