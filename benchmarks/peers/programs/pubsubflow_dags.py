"""DAGs of the suite: each workload starts by an event."""

from task_marks import body

from pubsubflow import DAG, Context, Dataset, task


def _task(label, source, outlets=(), task_id="t"):
    """Make a task that marks itself for the events of its run."""

    @task(task_id=task_id, outlets=list(outlets))
    def marked(ctx: Context) -> None:
        keys = [event.extra.get("key", "-") for event in ctx.events[source]]
        body(label, keys, ctx.run.run_id)

    return marked()


def _dag(name, source, outlets=()):
    with DAG(name.replace(".", "_"), schedule=source, max_active_runs=1000):
        _task(name, source, outlets)


for name in ("one", "slow"):
    _dag(name, Dataset(f"peers://{name}"))

hop = Dataset("peers://hop")
_dag("pair.up", Dataset("peers://pair"), [hop])
_dag("pair.down", hop)

links = [Dataset("peers://chain"), *(Dataset(f"peers://chain/{index}") for index in range(1, 11))]
for index in range(10):
    _dag(f"chain.{index}", links[index], [links[index + 1]])

fan = Dataset("peers://fan")
for index in range(10):
    _dag(f"fan.{index}", fan)

ten = Dataset("peers://ten")
with DAG("ten", schedule=ten, max_active_runs=1000):
    for index in range(10):
        _task(f"ten.{index}", ten, task_id=f"t{index}")
