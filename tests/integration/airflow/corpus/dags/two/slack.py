from datetime import datetime

from airflow import DAG
from airflow.providers.slack.operators.slack_webhook import SlackWebhookOperator

with DAG("slack_2", schedule="@daily", start_date=datetime(2022, 1, 1)):
    SlackWebhookOperator(task_id="tell", http_conn_id="slack", message="done")
