"""JSON types of plugins."""

from msgspec import Struct


class PluginView(Struct, frozen=True, kw_only=True):
    """A plugin that is installed beside the daemon that answers.

    Attributes:
        kind: `trigger`, `operator`, `notifier`, `connection-type`, `secrets-backend`,
            `log-store`.
        name: The name of its entry point.
        object: `package.module:object`.
        distribution: The distribution that declares it.
        version: That distribution's.
        error: Why it cannot be used; None if it can be imported.
    """

    kind: str
    name: str
    object: str
    distribution: str
    version: str
    error: str | None = None
