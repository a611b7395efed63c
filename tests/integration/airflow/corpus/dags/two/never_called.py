from datetime import datetime

from airflow.decorators import dag, task


@dag(schedule="@daily", start_date=datetime(2021, 1, 1))
def never_called():
    @task
    def work():
        pass

    work()
