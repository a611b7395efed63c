"""DAGs of one partitioned asset, one for each mapper."""

from airflow import sdk
from airflow.partition_mappers.temporal import StartOfDayMapper

DATES, HOURS = "%Y-%m-%d", "%Y-%m-%dT%H"
MAPPERS = {
    "identity": sdk.IdentityMapper(),
    "allowed": sdk.AllowedKeyMapper(["us", "eu"]),
    "hour": sdk.StartOfHourMapper(),
    "day": sdk.StartOfDayMapper(),
    "week": sdk.StartOfWeekMapper(),
    "month": sdk.StartOfMonthMapper(output_format="%m/%Y"),
    "quarter": sdk.StartOfQuarterMapper(input_format=DATES),
    "year": sdk.StartOfYearMapper(),
    "product": sdk.ProductMapper(sdk.IdentityMapper(), sdk.StartOfDayMapper()),
    "product_of_three": sdk.ProductMapper(
        sdk.StartOfYearMapper(input_format=DATES),
        sdk.IdentityMapper(),
        sdk.AllowedKeyMapper(["us"]),
        delimiter="/",
    ),
    # Of core, which has had zones before the SDK.
    "day_of_core": StartOfDayMapper(timezone="America/New_York"),
}

# Releases before 3.3 have fewer.
if hasattr(sdk, "FanOutMapper"):
    BACKWARD = sdk.Window.Direction.BACKWARD
    REGIONS = sdk.SegmentWindow(["us", "eu", "apac"])
    MAPPERS |= {
        "fixed": sdk.FixedKeyMapper("all"),
        "day_there": sdk.StartOfDayMapper(
            timezone="Asia/Tokyo", input_format="%Y-%m-%dT%H:%M:%S%z"
        ),
        "product_with_fixed": sdk.ProductMapper(
            sdk.StartOfYearMapper(input_format=DATES),
            sdk.FixedKeyMapper("x"),
            sdk.AllowedKeyMapper(["us"]),
            delimiter="/",
        ),
        "minutes": sdk.RollupMapper(
            upstream_mapper=sdk.StartOfHourMapper(), window=sdk.HourWindow()
        ),
        "hours": sdk.RollupMapper(
            upstream_mapper=sdk.StartOfDayMapper(input_format=HOURS), window=sdk.DayWindow()
        ),
        "hours_there": sdk.RollupMapper(
            upstream_mapper=sdk.StartOfDayMapper(timezone="America/New_York", input_format=HOURS),
            window=sdk.DayWindow(),
        ),
        "days_of_week": sdk.RollupMapper(
            upstream_mapper=sdk.StartOfWeekMapper(input_format=DATES), window=sdk.WeekWindow()
        ),
        "days_of_month": sdk.RollupMapper(
            upstream_mapper=sdk.StartOfMonthMapper(input_format=DATES), window=sdk.MonthWindow()
        ),
        "days_before": sdk.RollupMapper(
            upstream_mapper=sdk.StartOfMonthMapper(input_format=DATES),
            window=sdk.MonthWindow(direction=BACKWARD),
        ),
        "months_of_quarter": sdk.RollupMapper(
            upstream_mapper=sdk.StartOfQuarterMapper(input_format=DATES),
            window=sdk.QuarterWindow(),
        ),
        "months_before": sdk.RollupMapper(
            upstream_mapper=sdk.StartOfYearMapper(input_format=DATES),
            window=sdk.YearWindow(direction=BACKWARD),
        ),
        "regions": sdk.RollupMapper(upstream_mapper=sdk.FixedKeyMapper("all"), window=REGIONS),
        "to_days": sdk.FanOutMapper(
            upstream_mapper=sdk.StartOfWeekMapper(), window=sdk.WeekWindow()
        ),
        "to_days_before": sdk.FanOutMapper(
            upstream_mapper=sdk.StartOfWeekMapper(), window=sdk.WeekWindow(direction=BACKWARD)
        ),
        "to_months": sdk.FanOutMapper(
            upstream_mapper=sdk.StartOfYearMapper(), window=sdk.YearWindow()
        ),
        "to_hours": sdk.FanOutMapper(
            upstream_mapper=sdk.StartOfDayMapper(), window=sdk.DayWindow(), max_downstream_keys=23
        ),
        "to_regions": sdk.FanOutMapper(
            upstream_mapper=sdk.IdentityMapper(),
            window=REGIONS,
            downstream_mapper=sdk.IdentityMapper(),
        ),
    }

for name, mapper in MAPPERS.items():
    timetable = sdk.PartitionedAssetTimetable(
        assets=sdk.Asset("s3://lake/parts"), default_partition_mapper=mapper
    )
    with sdk.DAG(f"by_{name}", schedule=timetable):
        pass
