from airflow.sdk import DAG, get_current_context, task
from airflow.sdk.exceptions import AirflowSkipException

with DAG("context_3", schedule="@daily"):

    @task
    def show(logical_date=None, data_interval_start=None, ds=None):
        context = get_current_context()
        if context["dag_run"].run_type == "manual":
            raise AirflowSkipException("manual")
        return context["ti"].xcom_pull(task_ids="other", key="x")

    show()
