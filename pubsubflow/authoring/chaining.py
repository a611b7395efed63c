"""Many tasks in a row."""

from itertools import pairwise
from typing import Any

from pubsubflow.authoring.graph import order
from pubsubflow.authoring.source_location import mistake


def chain(*steps: Any) -> None:
    """Run the steps one after the other; two lists of one length side by side go pairwise.

    Raises:
        DefinitionError: Something is no task, or two neighbouring lists differ in length.
    """
    for before, after in pairwise(steps):
        if not (isinstance(before, list | tuple) and isinstance(after, list | tuple)):
            order(before, after)
            continue
        if len(before) != len(after):
            raise mistake(
                f"chain() joins lists of one length pairwise; these have {len(before)} "
                f"and {len(after)} tasks; put a task between them"
            )
        for one, other in zip(before, after, strict=True):
            order(one, other)
