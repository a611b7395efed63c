from airflow.sdk import DAG

with DAG("library_3", schedule=None) as library:
    pass
