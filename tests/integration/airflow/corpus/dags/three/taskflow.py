import pendulum

from airflow.sdk import dag, task


@dag(schedule="@daily", start_date=pendulum.datetime(2025, 1, 1, tz="Europe/Berlin"), tags=["three"])
def taskflow_3(day: str = "monday"):
    @task(retries=2)
    def extract(day):
        return {"a": day}

    @task
    async def transform(found):
        return found

    transform(extract(day))


taskflow_3()
