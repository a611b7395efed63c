from datetime import datetime

from airflow import DAG
from airflow.operators.check_operator import CheckOperator, IntervalCheckOperator, ValueCheckOperator

dag = DAG('checks_1_10', start_date=datetime(2018, 1, 1), schedule_interval='@daily')
a = CheckOperator(task_id='some', sql='SELECT COUNT(*) FROM t', conn_id='dw', dag=dag)
b = ValueCheckOperator(task_id='value', sql='SELECT 1', pass_value=1, tolerance=0.1, conn_id='dw', dag=dag)
c = IntervalCheckOperator(
    task_id='interval', table='t', metrics_thresholds={'COUNT(*)': 1.5}, conn_id='dw', dag=dag)
a >> [b, c]
