"""S3 and SQS."""

from airflow.providers.amazon.aws.operators.s3 import (
    S3CopyObjectOperator,
    S3CreateBucketOperator,
    S3CreateObjectOperator,
    S3ListOperator,
)
from airflow.providers.amazon.aws.operators.sqs import SqsPublishOperator
from airflow.providers.amazon.aws.sensors.s3 import S3KeySensor
from airflow.providers.amazon.aws.sensors.sqs import SqsSensor
from airflow.sdk import DAG, task

with DAG("s3", schedule=None):
    (
        S3CreateBucketOperator(task_id="bucket", bucket_name="lake")
        >> S3CreateObjectOperator(
            task_id="put", s3_bucket="lake", s3_key="in/{{ dag.dag_id }}.csv", data="a,b\n1,2\n"
        )
        >> S3KeySensor(task_id="seen", bucket_key="s3://lake/in/s3.csv", poke_interval=1)
        >> S3CopyObjectOperator(
            task_id="copy",
            source_bucket_key="s3://lake/in/s3.csv",
            dest_bucket_key="s3://lake/out/s3.csv",
        )
        >> S3ListOperator(task_id="list", bucket="lake", prefix="out/")
    )

with DAG("sqs", schedule=None):

    @task
    def bodies(ti=None):
        return [each["Body"] for each in ti.xcom_pull(task_ids="receive", key="messages")]

    receive = SqsSensor(task_id="receive", sqs_queue="{{ var.value.queue }}", poke_interval=1)
    publish = SqsPublishOperator(
        task_id="publish", sqs_queue="{{ var.value.queue }}", message_content="{{ run_id }}"
    )
    publish >> receive >> bodies()
