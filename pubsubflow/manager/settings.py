"""Settings of the manager."""

import msgspec


class ManagerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the manager works.

    Attributes:
        batch: Messages in one transaction at most.
        batch_events: Events in one transaction at most, unless a single post holds more.
        credit: Messages from the bus held at once at most.
        too_early_seconds: After how long a result that overtook another one comes again; each
            time twice as long, up to 512 times.
        max_map_length: Instances of a mapped task at most; a task with more fails.
    """

    batch: int = 500
    batch_events: int = 1000
    credit: int = 2000
    too_early_seconds: float = 0.005
    max_map_length: int = 100_000
