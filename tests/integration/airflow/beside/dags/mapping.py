"""Mapped tasks and groups: products, dicts, zip, concat, and what follows of mixed ends."""

import pendulum
from airflow.exceptions import AirflowFailException, AirflowSkipException
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, task, task_group

RULES = (
    "all_success", "all_failed", "all_done", "one_success", "one_failed", "none_failed",
    "none_failed_min_one_success", "none_skipped", "one_done", "all_skipped",
    "all_done_min_one_success",
)  # fmt: skip
MIXES = {
    "ss": ["a", "skip"],
    "sf": ["a", "fail"],
    "kf": ["skip", "fail"],
    "skf": ["a", "skip", "fail"],
    "kk": ["skip", "skip"],
    "none": [],
}


@task
def part(x):
    if x == "skip":
        raise AirflowSkipException
    if x == "fail":
        raise AirflowFailException
    return x


with DAG("mixes", schedule=None, start_date=pendulum.datetime(2026, 1, 1)):
    for name, values in MIXES.items():
        mapped = part.override(task_id=f"part_{name}").expand(x=values)
        for rule in RULES:
            mapped >> EmptyOperator(task_id=f"{name}_{rule}", trigger_rule=rule)

with DAG("mapping", schedule=None, start_date=pendulum.datetime(2026, 1, 1)):

    @task
    def numbers(n=3):
        return list(range(n))

    @task
    def table():
        return {"a": 1, "b": 2}

    @task
    def keywords():
        return [{"x": 1, "y": 2}, {"x": 3, "y": 4}]

    @task
    def pair(x, y=0):
        return [x, y]

    @task
    def total(xs):
        return sum(xs)

    found, more = numbers(), numbers.override(task_id="more")(2)
    total(part.override(task_id="each").expand(x=found))
    pair.override(task_id="product").expand(x=found, y=more)
    pair.override(task_id="by_dict").expand(x=table())
    pair.override(task_id="keyed").expand_kwargs(keywords())
    pair.override(task_id="zipped").expand(x=found.zip(more))
    pair.override(task_id="longest").expand(x=found.zip(more, fillvalue=9))
    pair.override(task_id="joined").expand(x=found.concat(more))
    pair.override(task_id="both").expand(x=found.zip(more).concat(more), y=["p", "q"])
    pair.override(task_id="mapped_by").partial(y=1).expand(x=found.map(lambda n: n * 10))
    part.override(task_id="of_mapped").expand(x=part.override(task_id="source").expand(x=[1, 2]))
    part.override(task_id="empty").expand(x=numbers.override(task_id="no_numbers")(0))

    @task
    def drops(x):
        if x == 1:
            raise AirflowSkipException
        return x

    total.override(task_id="after_drop", trigger_rule="none_failed")(drops.expand(x=found))
    part.override(task_id="of_drops", trigger_rule="all_done").expand(
        x=drops.override(task_id="drops_again").expand(x=found)
    )

    @task_group
    def group(x):
        one = part.override(task_id="one")(x)
        two = pair.override(task_id="two")(one)
        last = EmptyOperator(task_id="last", trigger_rule="all_done")
        two >> last
        return two

    group.override(group_id="good").expand(x=found) >> EmptyOperator(task_id="after_good")
    mixed = group.override(group_id="mixed").expand(x=["a", "skip", "fail", "b"])
    mixed >> EmptyOperator(task_id="after_mixed")
    group.override(group_id="of_results").expand(x=found.zip(more)) >> EmptyOperator(
        task_id="after_results", trigger_rule="all_done"
    )
