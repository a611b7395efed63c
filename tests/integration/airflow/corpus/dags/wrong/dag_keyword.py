from airflow.sdk import DAG

dag = DAG("dag_keyword", schedule=None, colour="red")
