"""Which instances run in the cloud: posted to Slack and mailed, every day at 16:00."""

import json
from datetime import datetime, timedelta
from html import escape
from urllib.request import Request, urlopen

from pubsubflow import DAG, BashOperator, EmailOperator, PythonOperator

SERVICES = {
    "sql": "Cloud SQL",
    "spanner": "Spanner",
    "bigtable": "Bigtable",
    "compute": "Compute Engine",
}

default_args = {
    "owner": "data",
    "start_date": datetime(2022, 5, 1),
    "retries": 2,
    "retry_delay": timedelta(seconds=30),
}

dag = DAG("gcp_spy", default_args=default_args, schedule="0 16 * * *", catchup=False)

list_instances = []
for service in SERVICES:
    command = f"gcloud {service} instances list | tail -n +2 | grep -oE '^[^ ]+' | tr '\\n' ' '"
    list_instances.append(
        BashOperator(task_id=f"get_{service}_instances", bash_command=command, dag=dag)
    )


def found(ti):
    return {
        name: ti.xcom_pull(task_ids=f"get_{service}_instances") or "none"
        for service, name in SERVICES.items()
    }


def send_slack_message(**context):
    slack = context["conn"].slack
    lines = [f"*{name}*: {instances}" for name, instances in found(context["ti"]).items()]
    request = Request(
        slack.extra_dejson.get("api_url", "https://slack.com/api") + "/chat.postMessage",
        data=json.dumps({"channel": "#cloud", "text": "\n".join(lines)}).encode(),
        headers={
            "Authorization": f"Bearer {slack.secrets['token']}",
            "Content-Type": "application/json; charset=utf-8",
        },
    )
    with urlopen(request, timeout=30) as response:
        answer = json.load(response)
    if not answer["ok"]:
        raise RuntimeError(f"Slack refused the message: {answer['error']}")


def prepare_mail(**context):
    rows = [
        f"<li><b>{escape(name)}</b>: {escape(instances)}</li>"
        for name, instances in found(context["ti"]).items()
    ]
    context["ti"].xcom_push(key="mail", value=f"<ul>{''.join(rows)}</ul>")


slack_task = PythonOperator(
    task_id="send_slack_message", python_callable=send_slack_message, dag=dag
)
mail_text = PythonOperator(task_id="prepare_mail", python_callable=prepare_mail, dag=dag)
send_mail = EmailOperator(
    task_id="send_mail",
    to="cloud@example.org",
    subject="Instances on {{ ds }}",
    html_content="{{ task_instance.xcom_pull(task_ids='prepare_mail', key='mail') }}",
    dag=dag,
)

list_instances >> slack_task
list_instances >> mail_text >> send_mail
