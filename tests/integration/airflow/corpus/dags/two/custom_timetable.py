from datetime import timedelta

import pendulum

from airflow import DAG
from airflow.operators.empty import EmptyOperator
from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction, Timetable


class AfterWorkdayTimetable(Timetable):
    def infer_manual_data_interval(self, run_after):
        start = run_after.subtract(days=1)
        return DataInterval(start=start, end=run_after)

    def next_dagrun_info(self, *, last_automated_data_interval, restriction: TimeRestriction):
        start = last_automated_data_interval.end if last_automated_data_interval else restriction.earliest
        return DagRunInfo.interval(start=start, end=start + timedelta(days=1))


with DAG("custom_timetable_2", timetable=AfterWorkdayTimetable(), start_date=pendulum.datetime(2021, 1, 1)):
    EmptyOperator(task_id="a")
