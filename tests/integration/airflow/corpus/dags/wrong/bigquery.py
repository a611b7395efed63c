from airflow import DAG
from airflow.contrib.operators.bigquery_operator import BigQueryOperator

dag = DAG("bigquery")
