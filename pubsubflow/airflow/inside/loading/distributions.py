"""The distributions that hold Airflow's providers, by the names of their modules."""

_DEEP = ("apache", "cncf", "common", "dbt", "microsoft", "atlassian")


def distribution_of(module: str) -> str:
    """Return the distribution that has a provider's module.

    Args:
        module: Its whole name, such as `airflow.providers.cncf.kubernetes.operators.pod`.
    """
    parts = module.split(".")[2:]
    name = parts[:2] if parts and parts[0] in _DEEP else parts[:1]
    return "-".join(["apache-airflow-providers", *name]).replace("_", "-")
