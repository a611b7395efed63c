from airflow.sdk import DAG, RetryAction, RetryDecision, RetryPolicy, task


class Patient(RetryPolicy):
    def evaluate(self, exception, try_number, max_tries, context=None):
        return RetryDecision(action=RetryAction.RETRY)


with DAG("retry_policy_3", schedule=None):

    @task(retries=3, retry_policy=Patient())
    def work():
        raise ValueError

    work()
