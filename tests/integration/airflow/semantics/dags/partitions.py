"""Partitioned assets: keys at run time, by ticks, mapped, rolled up and fanned out."""

from datetime import UTC, datetime

from airflow import sdk
from airflow.sdk import DAG, Asset, task

OPTIONS = {"start_date": datetime(2026, 1, 1)}
sales, daily = (
    Asset(name="sales", uri="s3://parts/sales"),
    Asset(name="daily", uri="s3://parts/daily"),
)


@task
def key_of(dag_run=None, **context):
    # Contexts of Airflow 3.2 do not have it.
    assert context.get("partition_key", dag_run.partition_key) == dag_run.partition_key
    return dag_run.partition_key


# Releases before 3.3 have other ones.
if hasattr(sdk, "PartitionedAtRuntime"):
    with DAG("at_runtime", schedule=sdk.PartitionedAtRuntime(), **OPTIONS):

        @task(outlets=[sales])
        def emit(outlet_events=None):
            outlet_events[sales].add_partitions(
                ["us|2026-03-04T05:00:00", "eu|2026-03-04T06:00:00"]
            )

        emit()

    with DAG(
        "per_day",
        schedule=sdk.PartitionedAssetTimetable(
            assets=sdk.Asset.ref(name="sales"),
            default_partition_mapper=sdk.ProductMapper(
                sdk.IdentityMapper(), sdk.StartOfDayMapper()
            ),
        ),
    ):
        key_of()

with DAG(
    "by_tick",
    schedule=sdk.CronPartitionTimetable("0 0 * * *", timezone="UTC", run_offset=-1),
    start_date=datetime(2026, 3, 2, tzinfo=UTC),
    end_date=datetime(2026, 3, 8, tzinfo=UTC),
    catchup=True,
):
    key_of.override(outlets=[daily])()

month = sdk.StartOfMonthMapper()
if hasattr(sdk, "RollupMapper"):
    month = sdk.RollupMapper(
        upstream_mapper=month, window=sdk.MonthWindow(), wait_policy=sdk.MinimumCount(3)
    )

with DAG(
    "per_month",
    schedule=sdk.PartitionedAssetTimetable(assets=daily, default_partition_mapper=month),
):
    key_of()
