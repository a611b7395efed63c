"""Partitions that Airflow 3.2 has, too: by ticks, mapped, and of several parts."""

from airflow.sdk import (
    DAG,
    AllowedKeyMapper,
    Asset,
    CronPartitionTimetable,
    IdentityMapper,
    PartitionedAssetTimetable,
    ProductMapper,
    StartOfDayMapper,
    StartOfHourMapper,
    asset,
    task,
)

stats, regions = Asset("s3://lake/stats"), Asset("s3://lake/regions")

with DAG("hourly_3", schedule=CronPartitionTimetable("0 * * * *", timezone="UTC")):

    @task(outlets=[stats, regions])
    def ingest():
        pass

    ingest()


@asset(
    schedule=PartitionedAssetTimetable(
        assets=stats & regions,
        default_partition_mapper=StartOfHourMapper(),
        partition_mapper_config={regions: ProductMapper(IdentityMapper(), StartOfDayMapper())},
    )
)
def combined_3():
    pass


@asset(
    schedule=PartitionedAssetTimetable(
        assets=regions, default_partition_mapper=AllowedKeyMapper(["us", "eu"])
    )
)
def by_region_3():
    pass
