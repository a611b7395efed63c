"""DAGs whose tasks leave values by key, read variables and keep state."""

from pubsubflow import DAG, BashOperator, Context, Operator, PythonOperator, dag, task, variable


class Count(Operator):
    """Pushes a key, and returns nothing."""

    async def execute(self, ctx: Context) -> None:
        ctx.push("rows", {"n": 5})


def summarise(rows, ti, params, **context):
    pulled = ti.xcom_pull(task_ids="split", key="good")
    return [rows, pulled, params["day"], context["var"].value.limit, ti.xcom_pull("fail", key="a")]


@dag(params={"day": "monday"})
def keyed():
    @task(multiple_outputs=True)
    def split(ctx: Context) -> dict:
        ctx.push("extra", [1])
        return {"good": 3, "bad": 0}

    @task
    def chained(good: int, ctx: Context) -> list:
        return [good, ctx.pull("split", "extra")]

    @task
    def further(before: list, ctx: Context) -> list:
        # Two tasks back along a chain: its result may not be stored yet.
        return [*before, ctx.pull("split", "extra"), ctx.result("split")["bad"]]

    @task
    def fail(ctx: Context) -> None:
        ctx.push("a", "left")
        raise ValueError("on purpose")

    @task
    def each(n: int, ctx: Context) -> None:
        ctx.push("double", 2 * n)

    @task(trigger_rule="all_done")
    def gather(ctx: Context) -> list:
        return [ctx.pull("each", "double"), ctx.pull("each", "double", map_index=1)]

    parts = split()
    further(chained(parts["good"]))
    count = Count(task_id="count")
    summary = PythonOperator(
        task_id="summarise",
        python_callable=summarise,
        op_args=[count.output["rows"]["n"]],
        trigger_rule="all_done",
    )
    [fail(), parts] >> summary
    each.expand(n=[1, 2]) >> gather()
    command = (
        "echo {{ ds }} {{ var.limit | sh }} {{ conn.outside.host | sh }} "
        "{{ conn.outside.password | sh }} {{ ti.xcom_pull('split', key='good') | sh }}"
    )
    parts >> BashOperator(task_id="shell", bash_command=command)


@dag
def reader():
    @task
    def read(ctx: Context) -> list:
        good = ctx.pull("split", "good", dag_id="keyed_ok")
        return [good, ctx.pull("split", "nothing", dag_id="keyed_ok", default="none")]

    read()


with DAG("keyed_ok"):

    @task
    def split() -> dict:
        return {"good": 4}

    split()


@dag(max_active_runs=4)
def counting():
    @task(retries=50)
    async def add(ctx: Context) -> int:
        ctx.state["n"] = ctx.state.get("n", 0) + 1
        return ctx.state["n"]

    @task
    def after(ctx: Context, n: int) -> bool:
        return ctx.state["n"] >= n

    after(n=add())


with DAG("by_region"):
    for region in variable("regions", ["eu"]):

        @task(task_id=f"load_{region}")
        def load(name: str, ctx: Context) -> list:
            return [name, ctx.variable("regions", None)]

        load(region)
