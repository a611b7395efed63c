from datetime import datetime

from airflow import DAG
from airflow.operators.email_operator import EmailOperator

dag = DAG('email_1_10', start_date=datetime(2018, 1, 1), schedule_interval='@monthly')
EmailOperator(
    task_id='report', to='team@example.com', subject='Report {{ ds }}',
    html_content='<h3>{{ prev_ds }}</h3>', dag=dag)
