"""Cluster policies of the team."""
from airflow.exceptions import AirflowClusterPolicySkipDag, AirflowClusterPolicyViolation


def dag_policy(dag):
    if dag.dag_id == "without_owner":
        raise AirflowClusterPolicyViolation("every DAG names its owner")
    if dag.dag_id == "skipped_by_policy":
        raise AirflowClusterPolicySkipDag("not here")


def task_policy(task):
    if task.dag_id == "policy_changes":
        task.queue = "batch"
    if task.dag_id == "policy_breaks":
        raise ValueError("a mistake in the policy")


def get_dagbag_import_timeout(dag_file_path):
    return 1.0 if dag_file_path.endswith("endless.py") else 30.0
