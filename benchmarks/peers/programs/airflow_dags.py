"""Airflow's DAGs of the suite: `one`, `slow` and `fan` by asset events, the others by runs."""

from airflow.sdk import DAG, Asset, task
from task_marks import body

COMMON = {"catchup": False, "is_paused_upon_creation": False, "max_active_runs": 128}


def keys_of(context):
    """Return the keys that a run is for: of its asset events, or of its trigger."""
    events = [each for group in context["triggering_asset_events"].values() for each in group]
    keys = [(event.extra or {}).get("key", "-") for event in events]
    return keys or [(context["dag_run"].conf or {}).get("key", "-")]


def marked(label, outlets=(), task_id="t"):
    """Make a task that marks itself."""

    @task(task_id=task_id, outlets=list(outlets))
    def run(**context):
        body(label, keys_of(context), context["run_id"])

    return run()


def dag(name, label, schedule=None, outlets=()):
    """Make a DAG of one task."""
    with DAG(name, schedule=schedule, **COMMON) as made:
        marked(label, outlets)
    globals()[name] = made


dag("one", "one", [Asset("one")])
dag("slow", "slow", [Asset("slow")])
dag("pair", "pair.up", None, [Asset("hop")])
dag("pair_down", "pair.down", [Asset("hop")])
for index in range(10):
    schedule = [Asset(f"link{index}")] if index else None
    dag(f"chain_{index}", f"chain.{index}", schedule, [Asset(f"link{index + 1}")])

for index in range(10):
    dag(f"fan_{index}", f"fan.{index}", [Asset("fan")])

with DAG("ten", schedule=None, **COMMON) as ten:
    for index in range(10):
        marked(f"ten.{index}", task_id=f"t{index}")

with DAG("unheard", schedule=[Asset("unheard")], **(COMMON | {"is_paused_upon_creation": True})):
    marked("unheard")
