"""Slack, PagerDuty, Datadog and Jira."""

from airflow.providers.atlassian.jira.operators.jira import JiraOperator
from airflow.providers.datadog.hooks.datadog import DatadogHook
from airflow.providers.pagerduty.hooks.pagerduty_events import PagerdutyEventsHook
from airflow.providers.pagerduty.notifications.pagerduty import send_pagerduty_notification
from airflow.providers.slack.operators.slack import SlackAPIPostOperator
from airflow.providers.slack.operators.slack_webhook import SlackWebhookOperator
from airflow.sdk import DAG, task

with DAG("slack", schedule=None):
    SlackAPIPostOperator(
        task_id="post", channel="#rows", username="ann", text="{{ dag.dag_id }}: 3 rows"
    ) >> SlackWebhookOperator(
        task_id="hook", slack_webhook_conn_id="slack_hook", message="{{ ti.task_id }}"
    )

with DAG("jira", schedule=None):
    JiraOperator(
        task_id="issue",
        jira_method="create_issue",
        jira_method_args={
            "fields": {
                "project": {"key": "OPS"},
                "summary": "{{ dag.dag_id }} has failed",
                "issuetype": {"name": "Bug"},
            }
        },
    )

with DAG("pagerduty", schedule=None):

    @task
    def resolve():
        hook = PagerdutyEventsHook(pagerduty_events_conn_id="pagerduty_events_default")
        return hook.send_event("rows are there", "info", action="resolve", dedup_key="rows")

    @task(
        on_failure_callback=send_pagerduty_notification(
            summary="{{ ti.task_id }} has failed",
            severity="critical",
            source="shop",
            dedup_key="rows",
            pagerduty_events_conn_id="pagerduty_events_default",
        )
    )
    def fails():
        raise ValueError("no rows")

    fails()
    resolve()

with DAG("datadog", schedule=None):

    @task
    def metric(ti=None):
        hook = DatadogHook()
        event = hook.post_event("rows", f"{ti.task_id} has run", alert_type="success")
        return [hook.send_metric("shop.rows", 3, type_="gauge")["status"], event["status"]]

    metric()
