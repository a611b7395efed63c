from airflow.sdk import DAG

from common.broken import value

dag = DAG("helper_breaks", schedule=None)
