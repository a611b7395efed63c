"""JSON types of the versions that a DAG's runs take: pins, shares, and how their runs went."""

from datetime import datetime

from msgspec import Struct


class VersionRuns(Struct, frozen=True, kw_only=True):
    """The runs of a version, of the newest 10,000 runs of its DAG.

    Attributes:
        total: All of them.
        running: Those that have not ended.
        mean_seconds, p95_seconds: How long those that succeeded took, from start to end.
    """

    total: int = 0
    running: int = 0
    success: int = 0
    failed: int = 0
    cancelled: int = 0
    mean_seconds: float | None = None
    p95_seconds: float | None = None


class PinView(Struct, frozen=True, kw_only=True):
    """A DAG that stays at a version whatever its file defines.

    Attributes:
        at, by: When it was pinned, and by whom.
    """

    at: datetime
    by: str


class VersionShare(Struct, frozen=True, kw_only=True):
    """The share of new runs that a version takes, and how those went since the share began.

    Attributes:
        share: Above 0 and below 1; of two versions they add up to 1.
        since: When the share began.
    """

    version: int
    share: float
    since: datetime
    runs: VersionRuns
