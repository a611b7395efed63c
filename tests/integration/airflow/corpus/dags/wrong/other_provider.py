from airflow.sdk import DAG

MISSING = ModuleNotFoundError(
    "No module named 'airflow.providers.exasol'", name="airflow.providers.exasol"
)


def transfer():
    raise MISSING  # as airflow.providers.amazon.aws.transfers.exasol_to_s3 does


with DAG("other_provider"):
    transfer()
