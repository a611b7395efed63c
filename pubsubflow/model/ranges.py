"""Ranges of settings are annotated types that the configuration checks, with two bounds each.

An unbounded setting is a trap: 0 slots wait for ever, -4 processes start none, `inf` never ends.
"""

from typing import Annotated

from msgspec import Meta

_YEAR_SECONDS = 366 * 24 * 3600

Seconds = Annotated[float, Meta(ge=0.001, le=_YEAR_SECONDS)]
SecondsOrNone = Annotated[float, Meta(ge=0, le=_YEAR_SECONDS)]
"""0 stands for at once, or for not at all."""
Hours = Annotated[float, Meta(ge=0.001, le=_YEAR_SECONDS / 3600)]
Days = Annotated[int, Meta(ge=1, le=36_600)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
CountOrNone = Annotated[int, Meta(ge=0, le=1_000_000)]
Bytes = Annotated[int, Meta(ge=1024, le=1 << 50)]
BytesOrNone = Annotated[int, Meta(ge=0, le=1 << 50)]
MemorySize = Annotated[str, Meta(pattern=r"^[0-9]+(\.[0-9]+)? ?[KMGT]i?B$")]
"""Such as `16GiB` (1024) or `512MB` (1000)."""
Cpus = Annotated[float, Meta(ge=0.01, le=10_000)]
Port = Annotated[int, Meta(ge=0, le=65_535)]
"""0 stands for a free one, or for none."""
Processes = Annotated[int, Meta(ge=1, le=10_000)]
QueueName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,250}$")]
"""A name that is a part of NATS subjects and consumers."""
