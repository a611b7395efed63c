from datetime import datetime

from airflow import DAG
from airflow.decorators import task
from airflow.models import DagRun
from airflow.utils.session import create_session, provide_session

with DAG("session_task_2", schedule="@daily", start_date=datetime(2022, 1, 1)):

    @task
    def count():
        with create_session() as session:
            return session.query(DagRun).count()

    @task
    def find():
        return len(DagRun.find(dag_id="classic_2"))

    @provide_session
    def clean(session=None):
        session.query(DagRun).delete()

    count() >> find()
