"""The files of a folder that may hold DAGs, found as Airflow finds them."""

from pathlib import Path

from airflow.configuration import conf
from airflow.utils.file import list_py_file_paths


def find_files(place: str) -> list[str]:
    """Return the paths of all files below a folder that may hold DAGs, sorted.

    Airflow's own finder honours `.airflowignore` in the syntax that `airflow.cfg` names, opens zip
    files, and leaves out modules without the words `airflow` and `dag` where safe mode is on.

    Args:
        place: A folder, or one file, which is taken as it is.
    """
    safe = conf.getboolean("core", "dag_discovery_safe_mode", fallback=True)
    return sorted(str(Path(each)) for each in list_py_file_paths(place, safe_mode=safe))
