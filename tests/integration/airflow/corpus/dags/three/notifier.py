from airflow.providers.smtp.notifications.smtp import SmtpNotifier
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, BaseNotifier


class Note(BaseNotifier):
    def notify(self, context):
        print(context)


with DAG("notifier_3", schedule="@daily", on_failure_callback=Note()):
    EmptyOperator(
        task_id="a",
        on_success_callback=SmtpNotifier(from_email="a@example.com", to="b@example.com", subject="ok", html_content="x"))
