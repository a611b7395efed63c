from datetime import datetime

from airflow import DAG
from airflow.operators.dummy_operator import DummyOperator
from airflow.utils.trigger_rule import TriggerRule

dag = DAG('trigger_rules_1_10', start_date=datetime(2018, 1, 1), schedule_interval=None)
a = DummyOperator(task_id='a', dag=dag)
b = DummyOperator(task_id='b', dag=dag, trigger_rule=TriggerRule.DUMMY)
c = DummyOperator(task_id='c', dag=dag, trigger_rule='none_failed_or_skipped')
d = DummyOperator(task_id='d', dag=dag, trigger_rule='dummy')
a >> b >> c >> d
