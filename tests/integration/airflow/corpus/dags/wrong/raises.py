from airflow.sdk import DAG

dag = DAG("raises", schedule=None)
raise ValueError("the table of tables is empty")
