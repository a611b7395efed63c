"""Loader settings: time limits, processes, and the limits of bundles."""

from typing import Annotated

from msgspec import Meta, Struct

from pubsubflow.model.ranges import Bytes, Processes, Seconds, SecondsOrNone

PRELOAD = ("pubsubflow", "pubsubflow.loader.child")
"""What the fork server of a loader imports once, before its first fork."""


class LoaderSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of the loader.

    Attributes:
        import_seconds: Time limit for importing one file.
        processes: How many imports run at once; the number of CPUs when None.
        files_a_process: How many files a process imports one after the other, as long as none
            leaves anything behind that another one could notice.
        gather_milliseconds: How long changes that follow each other are gathered, at most.
        rescan_seconds: Interval of scans without a notification, in case one got lost.
        slow_seconds: An import that takes longer makes room for the next file, and does not hold
            up the start of the daemon.
        retry_seconds: Delay before a failed import is tried again, in case that it failed for a
            reason outside of its files; it doubles up to ten minutes.
        missing_seconds: How long a DAG that is not in the folder any more is kept: it starts no
            runs, and its events wait.
        max_file_bytes: A larger file in the DAGs folder is an error.
        max_bundle_bytes: Likewise for all files of a bundle.
        max_bundle_files: Likewise for their number.
    """

    import_seconds: Seconds = 30.0
    processes: Processes | None = None
    files_a_process: Annotated[int, Meta(ge=1, le=10_000)] = 200
    gather_milliseconds: Annotated[int, Meta(ge=1, le=60_000)] = 200
    rescan_seconds: Seconds = 60.0
    slow_seconds: Seconds = 2.0
    retry_seconds: Seconds = 30.0
    missing_seconds: SecondsOrNone = 300.0
    max_file_bytes: Bytes = 16 << 20
    max_bundle_bytes: Bytes = 128 << 20
    max_bundle_files: Annotated[int, Meta(ge=1, le=1_000_000)] = 20_000
