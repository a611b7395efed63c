"""Dagster's definitions of the suite; a run's key is its tag `peers/key`."""

import os

import dagster as dg
from task_marks import body

KEY = "peers/key"
SENSOR_SECONDS = int(os.environ["PEERS_SENSOR_SECONDS"])
EXECUTOR = {
    "in_process": dg.in_process_executor,
    "multiprocess": dg.multiprocess_executor,
}[os.environ["PEERS_EXECUTOR"]]
EVENTS_A_LOOK = 100


def marked(label, name, emits=None):
    """Make an op that marks itself, and materialises an asset if it emits one."""

    @dg.op(name=name, out=dg.Out(dg.Nothing))
    def run(context: dg.OpExecutionContext):
        key = context.run.tags.get(KEY, "-")
        body(label, [key], context.run_id)
        if emits:
            context.log_event(dg.AssetMaterialization(emits, metadata={"key": key}))

    return run


def job(name, label, emits=None):
    """Make a job of one op."""
    op = marked(label, f"{name}_op", emits)

    @dg.job(name=name, executor_def=EXECUTOR)
    def made():
        op()

    return made


def sensor(asset, starts):
    """Make a sensor that starts a run of each job for each materialisation of an asset."""

    @dg.sensor(
        name=f"on_{asset}",
        jobs=starts,
        minimum_interval_seconds=SENSOR_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def made(context):
        found = context.instance.fetch_materializations(
            dg.AssetKey(asset), limit=EVENTS_A_LOOK, cursor=context.cursor, ascending=True
        )
        for record in found.records:
            metadata = record.asset_materialization.metadata
            key = metadata["key"].value if "key" in metadata else "-"
            for each in starts:
                yield dg.RunRequest(
                    run_key=f"{each.name}-{record.storage_id}",
                    job_name=each.name,
                    tags={KEY: str(key)},
                )
        if found.records:
            context.update_cursor(found.cursor)

    return made


jobs = {
    "one": job("one", "one"),
    "slow": job("slow", "slow"),
    "pair": job("pair", "pair.up", "hop"),
    "pair_down": job("pair_down", "pair.down"),
}
for index in range(10):
    jobs[f"chain_{index}"] = job(f"chain_{index}", f"chain.{index}", f"link{index + 1}")

for index in range(10):
    jobs[f"fan_{index}"] = job(f"fan_{index}", f"fan.{index}")

ops = [marked(f"ten.{index}", f"ten_{index}") for index in range(10)]


@dg.job(name="ten", executor_def=EXECUTOR)
def ten():
    """Ten ops side by side."""
    for op in ops:
        op()


watched = {"one": ["one"], "slow": ["slow"], "hop": ["pair_down"]}
watched |= {f"link{index}": [f"chain_{index}"] for index in range(1, 10)}
watched["fan"] = [f"fan_{index}" for index in range(10)]

defs = dg.Definitions(
    assets=[dg.AssetSpec(name) for name in ("one", "slow", "fan", "unheard")],
    jobs=[*jobs.values(), ten],
    sensors=[sensor(asset, [jobs[name] for name in names]) for asset, names in watched.items()],
)
