from airflow.models import Variable
from airflow import DAG

dag = DAG("missing_variable", schedule_interval=Variable.get("no_such_variable"))
