from airflow.sdk import DAG

dag = DAG("not a valid id!", schedule=None)
