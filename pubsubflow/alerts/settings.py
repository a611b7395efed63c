"""Settings of the alert service."""

from msgspec import Struct

from pubsubflow.model.ranges import CountOrNone, Days, Processes, Seconds, SecondsOrNone


class AlertSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of callbacks and alerts.

    Attributes:
        timeout_seconds: Time limit of one call of a callback.
        retries: Further tries of a call that has failed.
        retry_delay_seconds: Delay before the second try; it grows threefold with each further one.
        at_once: Calls at a time.
        keep_days: How long ended calls and alerts are kept.
    """

    timeout_seconds: Seconds = 60.0
    retries: CountOrNone = 3
    retry_delay_seconds: SecondsOrNone = 5.0
    at_once: Processes = 4
    keep_days: Days = 30
