"""Runs in the interpreter that has Airflow: maps partition keys as its scheduler does."""

import json
import runpy

from airflow import sdk
from airflow.serialization.encoders import coerce_to_core_timetable


def main(file, *keys):
    found = {}
    for name, mapper in runpy.run_path(file)["MAPPERS"].items():
        table = sdk.PartitionedAssetTimetable(
            assets=sdk.Asset("s3://lake/parts"), default_partition_mapper=mapper
        )
        core = coerce_to_core_timetable(table).default_partition_mapper
        found[name] = {key: _mapped(core, key) for key in keys}
    print(json.dumps(found))


def _mapped(mapper, key):
    """Return the runs' keys of an event's key, each with the keys that it needs."""
    try:
        to = mapper.to_downstream(key)
    except Exception:  # noqa: BLE001 - whatever it is, the scheduler queues nothing
        return {}
    runs = [to] if isinstance(to, str) else list(to)
    # Airflow 3.2 has no bound, and nothing that rolls up.
    most = getattr(mapper, "max_downstream_keys", None)
    if most is not None and len(runs) > most:
        return {}
    if not getattr(mapper, "is_rollup", False):
        return dict.fromkeys(runs)
    return {run: sorted(mapper.to_upstream(run)) for run in runs}
