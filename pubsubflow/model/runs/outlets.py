"""Which dataset events a successful task gives."""

from collections.abc import Sequence

from pubsubflow.model.wire.messages import Emit


def news(
    outlets: Sequence[str],
    emits: Sequence[Emit] = (),
    *,
    follow: Sequence[str] | None = None,
    published: Sequence[str] = (),
) -> tuple[Emit, ...]:
    """Return what a task emitted, and a plain event for each outlet that it said nothing about.

    Args:
        outlets: URIs of the task's outlets.
        emits: What it emitted, in order.
        follow: What a branch follows; `()` for a short circuit that stops, which has no news of
            its own.
        published: URIs of which it published events while it ran.
    """
    if follow == ():
        return tuple(emits)
    said = {*published, *(emit.uri for emit in emits)}
    return (*emits, *(Emit(uri) for uri in outlets if uri not in said))
