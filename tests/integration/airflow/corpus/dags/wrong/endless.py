from airflow import DAG

while True:
    pass
dag = DAG("endless")
