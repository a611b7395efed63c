from datetime import datetime

from airflow.decorators import dag, task
from airflow.sensors.base import PokeReturnValue


@dag(schedule_interval="@daily", start_date=datetime(2023, 1, 1), catchup=False, default_view="grid")
def decorated_2():
    @task.branch
    def choose():
        return "bashed"

    @task.short_circuit
    def go():
        return True

    @task.bash
    def bashed():
        return "echo hello"

    @task.sensor(poke_interval=60, timeout=3600, mode="reschedule")
    def wait() -> PokeReturnValue:
        return PokeReturnValue(is_done=True, xcom_value="x")

    @task.virtualenv(requirements=["pendulum"], system_site_packages=False)
    def isolated():
        import pendulum

        return str(pendulum.now())

    @task.external_python(python="/usr/bin/python3")
    def outside():
        return 1

    go() >> choose() >> bashed()
    wait() >> isolated() >> outside()


dag_object = decorated_2()
