from airflow.sdk import DAG, task

with DAG("virtualenv_3", schedule=None):

    @task.virtualenv(requirements=["six"])
    def inside():
        return 1

    @task.bash(cwd="/tmp")
    def shell():
        return "ls"

    inside() >> shell()
