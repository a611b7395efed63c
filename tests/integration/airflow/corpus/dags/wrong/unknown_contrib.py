from airflow import DAG
from airflow.contrib.hooks.gone_for_good import GoneHook

dag = DAG("unknown_contrib")
