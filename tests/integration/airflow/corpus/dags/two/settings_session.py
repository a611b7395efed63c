from datetime import datetime

from airflow import DAG, settings
from airflow.models import Connection
from airflow.operators.python import PythonOperator


def add_connection():
    session = settings.Session()
    session.add(Connection(conn_id="new", conn_type="http"))
    session.commit()


with DAG("settings_session_2", schedule_interval=None, start_date=datetime(2021, 1, 1)) as dag:
    PythonOperator(task_id="add", python_callable=add_connection)
