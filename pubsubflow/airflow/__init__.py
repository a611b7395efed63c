"""Airflow's DAG files run unmodified, in an interpreter of their own that has Airflow.

`inside` runs in that interpreter, `outside` in ours; `structure` and `wire` are what they exchange.
"""
