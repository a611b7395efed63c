import datetime

from airflow import DAG
from airflow.decorators import task
from airflow.models.param import Param, ParamsDict

with DAG(
    dag_id="params_2",
    schedule=None,
    start_date=datetime.datetime(2022, 3, 4),
    render_template_as_native_obj=True,
    params={
        "names": Param(["Linda", "Martha"], type="array", description="who"),
        "bool": Param(True, type="boolean"),
        "pick": Param("a", enum=["a", "b"]),
        "day": Param("2024-01-01", type="string", format="date"),
        "plain": 3,
    },
) as dag:

    @task
    def get_names(**kwargs):
        params: ParamsDict = kwargs["params"]
        return params["names"]

    get_names()
