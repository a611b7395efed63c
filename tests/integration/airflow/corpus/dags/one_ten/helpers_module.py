from airflow import DAG

from common.factory import make

dag = make('with_helpers', DAG)
