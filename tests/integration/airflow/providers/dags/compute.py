"""Docker, Spark, Databricks and Snowflake."""

from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.providers.databricks.operators.databricks import DatabricksSubmitRunOperator
from airflow.providers.docker.operators.docker import DockerOperator
from airflow.providers.snowflake.operators.snowflake import SnowflakeSqlApiOperator
from airflow.sdk import DAG

with DAG("docker", schedule=None):
    DockerOperator(
        task_id="run",
        image="shop/rows:1",
        command=["count", "{{ dag.dag_id }}"],
        environment={"TABLE": "pet"},
        mount_tmp_dir=False,
        auto_remove="force",
    )

with DAG("spark", schedule=None):
    SparkSubmitOperator(
        task_id="submit",
        application="/srv/rows.py",
        application_args=["--table", "{{ dag.dag_id }}"],
        name="rows",
        conf={"spark.executor.instances": "2"},
        executor_memory="1G",
    )

with DAG("databricks", schedule=None):
    DatabricksSubmitRunOperator(
        task_id="submit",
        tasks=[
            {
                "task_key": "rows",
                "notebook_task": {"notebook_path": "/Shop/{{ dag.dag_id }}"},
                "existing_cluster_id": "1234-567890-abcde123",
            }
        ],
        polling_period_seconds=1,
    )

with DAG("snowflake", schedule=None):
    SnowflakeSqlApiOperator(
        task_id="count",
        sql="SELECT count(*) FROM pet",
        statement_count=1,
        warehouse="LOADING",
        poll_interval=1,
    )
