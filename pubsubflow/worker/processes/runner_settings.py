"""The settings with which a worker's runners are forked."""

from pubsubflow.runner.protocol import RunnerSettings
from pubsubflow.worker.settings import ResultStoreSettings, WorkerSettings

_ENVELOPE_BYTES = 16_384
"""Left of the largest message for all of a ResultMessage but the result."""


def runner_settings(
    kind: str,
    worker: str,
    settings: WorkerSettings,
    results: ResultStoreSettings,
    *,
    max_payload: int,
) -> RunnerSettings:
    """Return what a worker's runners are forked with.

    Args:
        kind: `sync` or `async`.
        worker: Id of the worker.
        settings: Its settings.
        results: Where large results go.
        max_payload: The largest message of the bus, in bytes.
    """
    return RunnerSettings(
        kind=kind,
        worker=worker,
        max_result_bytes=max_payload - _ENVELOPE_BYTES,
        grace_seconds=settings.grace_seconds,
        max_log_bytes=settings.max_log_bytes,
        inline_bytes=results.inline_bytes,
        max_stored_bytes=results.max_bytes if results.store else 0,
    )
