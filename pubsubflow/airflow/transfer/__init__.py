"""The part of `pubsubflow airflow import` that reads an Airflow: connections, variables, pools."""
