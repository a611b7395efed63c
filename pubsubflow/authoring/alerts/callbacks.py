"""Callbacks as users write them: functions of a context, notifiers, or lists of both."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

from pubsubflow.model.callbacks import CallbackKind, Callbacks

Callback = Callable[[Any], object]
TASK_CALLBACKS = (
    CallbackKind.SUCCESS,
    CallbackKind.FAILURE,
    CallbackKind.RETRY,
    CallbackKind.SKIPPED,
)
DAG_CALLBACKS = (CallbackKind.SUCCESS, CallbackKind.FAILURE)


def callbacks(value: object) -> tuple[Callback, ...]:
    """Return what is called, in order.

    Raises:
        TypeError: Something in it is neither a function nor a notifier.
    """
    if value is None:
        return ()
    given = tuple(value) if isinstance(value, list | tuple) else (value,)
    for each in given:
        if isinstance(each, type):
            raise TypeError(f"must hold a notifier, not its class: write {each.__name__}(…)")
        if not callable(each):
            raise TypeError("must be a function of a context, a notifier, or a list of these")
    return given


def callback_name(callback: Callback) -> str:
    """Return the name of a function, or of a notifier's type."""
    if isinstance(callback, functools.partial):
        return callback_name(callback.func)
    return str(getattr(callback, "__name__", None) or type(callback).__name__)


def callback_names(
    callbacks_of: Callable[[str], Iterable[Callback] | None], kinds: tuple[CallbackKind, ...]
) -> Callbacks:
    """Return kind → names, of those kinds that have callbacks.

    Args:
        callbacks_of: Returns the callbacks of a kind.
        kinds: The kinds to look for.
    """
    found = ((str(kind), callbacks_of(kind)) for kind in kinds)
    return {kind: tuple(map(callback_name, given)) for kind, given in found if given}
