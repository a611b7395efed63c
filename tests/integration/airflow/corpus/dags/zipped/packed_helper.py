from airflow.operators.dummy_operator import DummyOperator


def command():
    return f"echo {DummyOperator.__name__}"
