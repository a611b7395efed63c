from airflow import DAG
from airflow.operators.subdag import SubDagOperator

dag = DAG("subdag_2")
