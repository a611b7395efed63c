"""Takes DAGs of other DAG files, which stay theirs; what a helper makes is this file's."""

from airflow.providers.standard.sensors.external_task import ExternalTaskSensor
from airflow.sdk import DAG
from common.factory import make
from ignored.kept import dag as kept
from ignored.library import library
from one_ten.hello import dag as hello
from three.classic import a

made = make("made_3", DAG)

with DAG("imports_dags_3", schedule=None) as dag:
    for other in (kept, library, hello, a.dag):
        ExternalTaskSensor(task_id=other.dag_id, external_dag_id=other.dag_id)
