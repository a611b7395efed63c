from datetime import datetime

from airflow import DAG
from airflow.providers.snowflake.operators.snowflake import SnowflakeOperator

with DAG("snowflake_2", schedule_interval="@daily", start_date=datetime(2021, 1, 1), catchup=False) as dag:
    SnowflakeOperator(
        task_id="copy", snowflake_conn_id="snow", sql="COPY INTO x", warehouse="WH", role="LOADER",
        database="RAW", schema="PUBLIC")
