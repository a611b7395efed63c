from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, task, task_group

with DAG("mapped_3", schedule=None):

    @task
    def numbers():
        return [1, 2, 3]

    @task(map_index_template="{{ n }}")
    def square(n, by=1):
        return n * by

    @task
    def total(values):
        return sum(values)

    @task_group
    def both(n):
        square.override(task_id="inner")(n)

    found = numbers()
    squares = square.partial(by=2).expand(n=found)
    total(squares.map(lambda v: v + 1))
    square.override(task_id="zipped").expand_kwargs(found.map(lambda n: {"n": n, "by": n}))
    both.expand(n=found.concat(squares))
    BashOperator.partial(task_id="bash").expand(bash_command=found.zip(squares).map(lambda p: f"echo {p}"))
