from datetime import datetime

from airflow import DAG
from airflow.providers.cncf.kubernetes.operators.kubernetes_pod import KubernetesPodOperator

with DAG("pod_2", schedule="@daily", start_date=datetime(2022, 1, 1)):
    KubernetesPodOperator(task_id="pod", name="pod", image="python:3.12", cmds=["python", "-c", "print(1)"])
