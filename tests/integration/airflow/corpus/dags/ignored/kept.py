from datetime import datetime

from airflow.sdk import DAG

dag = DAG("kept", schedule=None, start_date=datetime(2022, 1, 1))
