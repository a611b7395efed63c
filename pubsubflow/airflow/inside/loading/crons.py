"""Cron expressions that mean here what they mean to Airflow; the others are Airflow's to compute.

Airflow reads them by croniter, and pubsubflow by cronsim. Where both know a form, they agree.
"""

import re
from itertools import pairwise

_PART = re.compile(r"(?P<span>\*|[0-9A-Z]+-[0-9A-Z]+)(/[0-9]+)?|(?P<one>[0-9A-Z]+)")
_FIELDS = 5
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_NUMBERS = {name: at for at, name in enumerate(_MONTHS, 1)} | {
    name: at for at, name in enumerate(_DAYS)
}


def is_plain_cron(expression: str) -> bool:
    """Return whether an expression is one that both read alike.

    These are five fields of numbers, names, rising ranges, steps, and lists of such. Other forms
    are croniter's own: seconds, years, the last day of a week, `FRI-MON`, `5-5` (which it reads as
    any), `7/2`, a star in a list. Where both days are given and one of them begins with a star, as
    in `0 0 */2 * MON`, it takes either, and cronsim those that are both.
    """
    fields = expression.upper().split()
    if len(fields) != _FIELDS or not all(map(_is_plain, fields)):
        return False
    days = fields[2], fields[4]
    return "*" in days or not any(field.startswith("*") for field in days)


def _is_plain(field: str) -> bool:
    parts = field.split(",")
    if len(parts) > 1 and any(part.startswith("*") for part in parts):
        return False
    found = [_PART.fullmatch(part) for part in parts]
    return all(each is not None and _is_rising(each["span"] or each["one"]) for each in found)


def _is_rising(span: str) -> bool:
    if span == "*":
        return True
    ends = [int(end) if end.isdecimal() else _NUMBERS.get(end, -1) for end in span.split("-")]
    return ends[0] >= 0 and all(before < after for before, after in pairwise(ends))
