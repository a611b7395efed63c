"""Submissions of attempts: those with the same options go to the scheduler as one graph.

Each graph costs a client and the scheduler about as much as ten of its tasks do.
"""

from collections.abc import Iterable
from typing import Any

import msgspec
from dask.base import annotate

from pubsubflow.dask.options import Dask
from pubsubflow.dask.remote import AttemptOrder, run_attempt
from pubsubflow.errors import CannotStart


class Submission:
    """An attempt that is to be submitted.

    Args:
        key: Of its future.
        order: What it is on a Dask worker.
        options: Those of its task.
        names: The datasets that keep its future.

    Attributes:
        future: Its future, once it was sent.
        refusal: Why it was not; Dask refuses its options.
    """

    def __init__(self, key: str, order: AttemptOrder, options: Dask, names: Iterable[str]) -> None:
        self.key = key
        self.order = order
        self.options = options
        self.names = tuple(names)
        self.future: Any = None
        self.refusal: CannotStart | None = None


def submit_all(client: Any, submissions: Iterable[Submission]) -> dict[str, Any]:
    """Submit attempts, unless that was done; return the future of each name."""
    groups: dict[bytes, list[Submission]] = {}
    given = list(submissions)
    for each in given:
        if each.future is None and each.refusal is None:
            groups.setdefault(msgspec.msgpack.encode(each.options), []).append(each)
    for group in groups.values():
        _submit_group(client, group)
    return {name: each.future for each in given if each.future is not None for name in each.names}


def _submit_group(client: Any, group: list[Submission]) -> None:
    options = group[0].options
    try:
        with annotate(**options.annotations):
            futures = client.map(
                run_attempt,
                [each.order for each in group],
                key=[each.key for each in group],
                pure=False,
                # Dask must not run it a second time; its own rules do.
                retries=0,
                resources=options.resources or None,
                workers=options.workers or None,
                priority=options.priority,
            )
    except (TypeError, ValueError) as error:
        for each in group:
            each.refusal = CannotStart(f"Dask refuses its options: {error}", again=False)
        return
    for each, future in zip(group, futures, strict=True):
        each.future = future
