"""Outlet events: the dataset events of a task that succeeded."""

from collections.abc import Sequence

from pubsubflow.model.wire.messages import EmittedEvent


def outlet_events(
    outlets: Sequence[str],
    emits: Sequence[EmittedEvent] = (),
    *,
    follow: Sequence[str] | None = None,
    published: Sequence[str] = (),
) -> tuple[EmittedEvent, ...]:
    """Return the emitted events of a task, and a plain event for each further outlet.

    Args:
        outlets: URIs of the task's outlets.
        emits: The events that it emitted, in order.
        follow: The tasks that a branch follows; `()` for a short circuit that stops: it has no
            plain events.
        published: URIs of which it published events while it ran.
    """
    if follow == ():
        return tuple(emits)
    covered = {*published, *(emit.uri for emit in emits)}
    return (*emits, *(EmittedEvent(uri) for uri in outlets if uri not in covered))
