from datetime import datetime

from airflow import DAG
from airflow.operators.dagrun_operator import TriggerDagRunOperator

dag = DAG('controller_1_10', start_date=datetime(2018, 1, 1), schedule_interval='@once')
TriggerDagRunOperator(task_id='go', trigger_dag_id='hello_1_10', conf={'message': 'hi'}, dag=dag)
