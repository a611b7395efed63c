"""Settings of the alert service."""

from msgspec import Struct

from pubsubflow.errors import ConfigError


class AlertSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of callbacks and alerts.

    Attributes:
        timeout_seconds: Time limit of one call of a callback.
        retries: Further tries of a call that has failed.
        retry_delay_seconds: Delay before the second try; it grows threefold with each further one.
        at_once: Calls at a time.
        keep_days: How long ended calls and alerts are kept.
    """

    timeout_seconds: float = 60.0
    retries: int = 3
    retry_delay_seconds: float = 5.0
    at_once: int = 4
    keep_days: int = 30

    def __post_init__(self) -> None:
        if self.timeout_seconds <= 0 or self.at_once < 1 or self.retries < 0:
            raise ConfigError(
                "alerts: timeout_seconds and at_once must be positive, retries not negative"
            )
