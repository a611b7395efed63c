from datetime import datetime

from airflow import DAG
from airflow.operators.dummy_operator import DummyOperator
from airflow.operators.subdag_operator import SubDagOperator


def section(parent, child, args):
    dag = DAG('%s.%s' % (parent, child), default_args=args, schedule_interval='@daily')
    for i in range(3):
        DummyOperator(task_id='task-%s' % i, dag=dag)
    return dag


args = {'start_date': datetime(2018, 1, 1)}
dag = DAG('with_subdag', default_args=args, schedule_interval='@once')
section_1 = SubDagOperator(task_id='section-1', subdag=section('with_subdag', 'section-1', args), dag=dag)
