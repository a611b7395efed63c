from datetime import datetime

from airflow import DAG
from airflow.operators.bash import BashOperator


def compute(day):
    return day.replace("-", "/")


with DAG(
    "templates_2",
    schedule="@daily",
    start_date=datetime(2022, 1, 1),
    template_searchpath=["/srv/sql"],
    user_defined_macros={"prefix": "lake", "compute": compute},
    user_defined_filters={"double": lambda v: v * 2},
    jinja_environment_kwargs={"trim_blocks": True},
):
    BashOperator(task_id="a", bash_command="echo {{ prefix }} {{ compute(ds) }} {{ 2 | double }}")
    BashOperator(
        task_id="b",
        bash_command="echo {{ var.value.get('x', 'y') }} {{ conn.dw.host }} {{ prev_ds_nodash }} {{ macros.team.shout('a') }}")
