"""Macros of templates, as in Airflow: functions on dates, and a few of the standard library.

Modules are not among them: through one a template would reach whatever that imports.
"""

import json
import random
import time
import uuid
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

_DAY = "%Y-%m-%d"


def ds_add(ds: str, days: int) -> str:
    """Return the day that is so many days after another; negative for before."""
    return (datetime.strptime(str(ds), _DAY).replace(tzinfo=UTC) + timedelta(days)).strftime(_DAY)


def ds_format(ds: str, input_format: str, output_format: str) -> str:
    """Return a text of a moment, read in one format, in another."""
    return datetime.strptime(str(ds), input_format).strftime(output_format)  # noqa: DTZ007 - as read


MACROS = SimpleNamespace(
    ds_add=ds_add,
    ds_format=ds_format,
    datetime=datetime,
    timedelta=timedelta,
    random=random.random,
    json=SimpleNamespace(loads=json.loads, dumps=json.dumps),
    time=SimpleNamespace(time=time.time, strftime=time.strftime, gmtime=time.gmtime),
    uuid=SimpleNamespace(
        UUID=uuid.UUID,
        uuid4=uuid.uuid4,
        uuid5=uuid.uuid5,
        NAMESPACE_URL=uuid.NAMESPACE_URL,
        NAMESPACE_DNS=uuid.NAMESPACE_DNS,
    ),
)
"""What stands behind `macros.` in templates."""
