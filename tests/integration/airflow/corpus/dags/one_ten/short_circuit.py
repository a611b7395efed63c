from datetime import datetime

from airflow import DAG
from airflow.operators.dummy_operator import DummyOperator
from airflow.operators.latest_only_operator import LatestOnlyOperator
from airflow.operators.python_operator import ShortCircuitOperator
from airflow.utils.helpers import chain

dag = DAG('short_circuit_1_10', start_date=datetime(2018, 1, 1), schedule_interval='@daily')
latest = LatestOnlyOperator(task_id='latest_only', dag=dag)
cond = ShortCircuitOperator(task_id='condition', python_callable=lambda: False, dag=dag)
ends = [DummyOperator(task_id='false_%s' % i, dag=dag) for i in (1, 2)]
chain(latest, cond, ends)
