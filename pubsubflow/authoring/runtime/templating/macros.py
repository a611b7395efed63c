"""Macros of templates, as in Airflow: functions on dates, and a few of the standard library.

Modules are not among them: through one a template would reach whatever that imports.
"""

import json
import random
import time
import uuid
from datetime import UTC, datetime, timedelta
from importlib import import_module
from types import ModuleType, SimpleNamespace

from pubsubflow.authoring.source_location import definition_error

_DAY = "%Y-%m-%d"


def ds_add(ds: str, days: int) -> str:
    """Return the day that is so many days after another; negative for before."""
    return (datetime.strptime(str(ds), _DAY).replace(tzinfo=UTC) + timedelta(days)).strftime(_DAY)


def ds_format(ds: str, input_format: str, output_format: str) -> str:
    """Return a text of a moment, read in one format, in another."""
    return datetime.strptime(str(ds), input_format).strftime(output_format)  # noqa: DTZ007 - as read


class DateUtil:
    """The functions of python-dateutil that templates use; imported at their first use."""

    @property
    def parser(self) -> SimpleNamespace:
        """Functions that read moments: `parse`, `isoparse`."""
        return _functions("dateutil.parser", "parse", "isoparse")

    @property
    def relativedelta(self) -> SimpleNamespace:
        """`relativedelta`, and the days of a week."""
        return _functions(
            "dateutil.relativedelta", "relativedelta", "MO", "TU", "WE", "TH", "FR", "SA", "SU"
        )

    @property
    def tz(self) -> SimpleNamespace:
        """Time zones: `gettz`, `tzutc`, `UTC`."""
        return _functions("dateutil.tz", "gettz", "tzutc", "UTC")


def _functions(module: str, *names: str) -> SimpleNamespace:
    try:
        found: ModuleType = import_module(module)
    except ImportError:
        raise definition_error(
            "macros.dateutil needs python-dateutil: pip install 'pubsubflow[dateutil]'"
        ) from None
    return SimpleNamespace(**{name: getattr(found, name) for name in names})


MACROS = SimpleNamespace(
    ds_add=ds_add,
    ds_format=ds_format,
    dateutil=DateUtil(),
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
