from datetime import timedelta

import airflow
from airflow.models import DAG
from airflow.operators.bash_operator import BashOperator

args = {'owner': 'data-eng', 'start_date': airflow.utils.dates.days_ago(2)}

dag = DAG(
    dag_id='templated_1_10',
    default_args=args,
    schedule_interval='0 3 * * *',
    dagrun_timeout=timedelta(minutes=60),
)

templated_command = """
{% for i in range(5) %}
    echo "{{ ds }} {{ yesterday_ds }}"
    echo "{{ macros.ds_add(ds, 7)}}"
    echo "{{ params.my_param }} {{ execution_date.isoformat() }}"
{% endfor %}
"""

run = BashOperator(
    task_id='templated',
    bash_command=templated_command,
    params={'my_param': 'Parameter I passed in'},
    dag=dag,
)
