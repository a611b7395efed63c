"""JSON types of neighbourhoods of datasets."""

from datetime import datetime
from typing import Literal

from msgspec import Struct


class GraphNodeView(Struct, frozen=True, kw_only=True):
    """A dataset or a DAG in a graph.

    Attributes:
        name: URI, or the DAG's id.
        step: How many datasets away it is: below 0 for what leads to the chosen one.
        last_event_at: Of a dataset.
        stale: Whether it has had no event for as long as it declares.
        held: How many of its events checks hold, counted up to 1,000.
        state: Of a DAG: that of its last run.
        paused: Whether it starts no runs.
    """

    kind: Literal["dataset", "dag"]
    name: str
    step: int
    last_event_at: datetime | None = None
    stale: bool = False
    held: int = 0
    state: str | None = None
    paused: bool = False


class DatasetGraph(Struct, frozen=True, kw_only=True):
    """A dataset with the DAGs and datasets around it.

    Attributes:
        edges: Each as the places of its ends in `nodes`: from a dataset to a DAG that subscribes to
            it, and from a DAG to a dataset that its tasks declare as an outlet.
        complete: Whether nothing was left out because there were too many.
    """

    dataset: str
    nodes: list[GraphNodeView]
    edges: list[tuple[int, int]]
    complete: bool
