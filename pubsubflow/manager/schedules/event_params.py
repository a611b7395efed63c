"""Params of runs that are computed from the events which they consume."""

from collections.abc import Sequence

from pubsubflow.errors import InvalidInput
from pubsubflow.manager.working_state import RunDraft
from pubsubflow.model.cel.expressions import evaluate
from pubsubflow.model.runs.params import validate_params
from pubsubflow.model.wire.messages import EventInfo

PARAMS_EVENTS = 20_000
"""Of how many events a run's params are computed at most."""


def run_params(draft: RunDraft, events: Sequence[EventInfo] | None) -> dict[str, object]:
    """Return a run's params, computed from its events where its DAG says so.

    Args:
        draft: The run.
        events: The events that it consumes; None if they are too many to be read.

    Raises:
        InvalidInput: They do not fit the DAG, or there are too many events.
    """
    spec = draft.dag.version.spec
    # A tick may fire without any event.
    if not spec.params_from or (draft.kind == "cron" and events is not None and not events):
        return validate_params(spec, None)
    if events is None:
        raise InvalidInput(f"more than {PARAMS_EVENTS} events for one run's params")
    return validate_params(spec, evaluate(spec.params_from, events, draft.partition))
