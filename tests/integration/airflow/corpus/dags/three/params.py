from airflow.sdk import DAG, Param, task

with DAG(
    "params_3", schedule=None,
    params={"day": Param("2025-01-01", format="date"), "n": Param(3, type="integer", minimum=0)},
):

    @task
    def show(params, dag_run, run_id, ti, conf=None):
        print(params, dag_run, run_id, ti)

    show()
