from airflow import DAG
from airflow.models import DagRun
from airflow.settings import Session

session = Session()
runs = session.query(DagRun).all()
dag = DAG("database", schedule=None)
