from airflow.sdk import DAG, setup, task, teardown

with DAG("setup_3", schedule=None):

    @setup
    def make():
        return 1

    @task
    def use(n):
        return n

    @teardown
    def clean(n):
        return n

    made = make()
    cleaned = clean(made)
    with cleaned:
        use(made)
