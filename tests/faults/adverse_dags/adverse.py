"""DAGs that harm what is beside them, by children and floods of output; and ticks to count."""

import subprocess
from datetime import timedelta

from pubsubflow import Every, dag, task


@dag(max_active_runs=100)
def adverse_children() -> None:
    """Leave children behind, one of them in a session of its own, and flood the output."""

    @task
    def leave_output() -> int:
        return subprocess.Popen(["yes"]).pid

    @task
    def leave_session() -> int:
        return subprocess.Popen(["sleep", "1000"], start_new_session=True).pid

    @task
    def leave_orphans() -> None:
        subprocess.run("(setsid yes & sleep 1000 &) ; sleep 0", shell=True, check=True)

    @task
    def flood() -> None:
        for _ in range(5000):
            print("x" * 200)

    leave_output(), leave_session(), leave_orphans(), flood()


@dag(schedule=Every(timedelta(seconds=1)), catchup=False)
def adverse_ticks() -> None:
    """Run each second."""

    @task
    async def tick() -> None:
        pass

    tick()
