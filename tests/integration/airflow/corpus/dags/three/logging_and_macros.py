import logging

from airflow.sdk import DAG, task
from airflow.sdk.log import mask_secret

log = logging.getLogger(__name__)
print("printed while loading")
log.warning("logged while loading")

with DAG("logging_3", schedule="@daily"):

    @task
    def work():
        mask_secret("secret")
        log.info("x")

    work()
