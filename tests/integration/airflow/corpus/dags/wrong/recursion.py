from airflow.sdk import DAG


def deeper():
    return deeper()


deeper()
dag = DAG("recursion", schedule=None)
