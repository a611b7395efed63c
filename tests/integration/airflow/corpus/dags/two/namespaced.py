from datetime import datetime

from airflow import models
from airflow.utils import dates, timezone, trigger_rule
from airflow.operators import bash, python

with models.DAG("namespaced_2", schedule_interval="@daily", start_date=dates.days_ago(1)):
    bash.BashOperator(task_id="a", bash_command="true", trigger_rule=trigger_rule.TriggerRule.ALL_DONE)
    python.PythonOperator(task_id="b", python_callable=print)
assert timezone.utcnow() and models.Variable and models.XComArg
