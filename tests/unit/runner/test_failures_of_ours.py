"""What operators of the project raise reads as one line, and says what to set."""

import pytest

from pubsubflow import DAG, BashOperator, EmailOperator, PythonOperator
from pubsubflow.model.connections import make_connection


def failure(operator, **test):
    with DAG("tried") as dag:
        operator()
    ((_, (task,)),) = dag.test(**test).tasks.items()
    return task.error


def test_a_missing_connection_has_no_frames_of_ours_or_of_libraries():
    error = failure(lambda: EmailOperator(task_id="m", to="a@example.org", subject="s", text="t"))
    assert error.traceback.count("\n") == 1
    assert error.traceback.startswith("pubsubflow.errors.ConfigError: no connection named")
    assert "email.py" in error.full_traceback


def test_frames_of_the_users_function_stay():
    def fails():
        raise ValueError("no luck")

    error = failure(lambda: PythonOperator(task_id="p", python_callable=fails))
    assert 'raise ValueError("no luck")' in error.traceback


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("var.value.region", "no variable named 'region': set it with `pubsubflow variables set"),
        ("var.json.region", "no variable named 'region'"),
        (
            "conn.crm.host",
            "no connection named 'crm': set it with `pubsubflow connections set crm`",
        ),
    ],
)
def test_a_template_says_how_a_missing_value_is_set(name, says):
    error = failure(lambda: BashOperator(task_id="b", bash_command=f"echo {{{{ {name} }}}}"))
    assert says in error.message
    assert "default(…)" in error.message


def test_a_template_may_have_a_default():
    text = "echo {{ var.value.region | default('eu') }} {{ var.get('x', 1) }} {{ conn.crm.host }}"
    crm = make_connection("crm", uri="https://crm.example.org")
    with DAG("tried") as dag:
        BashOperator(task_id="b", bash_command=text)
    assert dag.test(connections={"crm": crm}).result("b") == "eu 1 crm.example.org"
