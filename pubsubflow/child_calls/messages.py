"""Messages of parent and child; the parent imports nothing of what DAG files need."""

from typing import Any

from msgspec import Struct

from pubsubflow.model.api.connection_types import ConnectionType
from pubsubflow.model.callbacks import CallbackFacts
from pubsubflow.model.connections import Connection
from pubsubflow.model.values.variables import Variable


class CallbackRequest(Struct, frozen=True):
    """The argument of `run_callback`.

    Attributes:
        folder: The folder of the bundle.
        root: The folder that users know it by.
        file: The DAG file.
        facts: What is known of the outcome.
        kind: Of the bundle; see `Manifest`.
        variables: What the import of the file may use; see `DagSpec`.
    """

    folder: str
    root: str
    file: str
    facts: CallbackFacts
    kind: str = ""
    variables: dict[str, tuple[Any, ...]] = {}


class CallbackLine(Struct, frozen=True, omit_defaults=True):
    """What the child sends: a line of output, a request, or the end.

    Attributes:
        connection, variable: The name of what it needs; the parent answers with a `CallbackReply`.
    """

    output: str | None = None
    connection: str | None = None
    variable: str | None = None
    ended: bool = False
    error: str | None = None


class CallbackReply(Struct, frozen=True, omit_defaults=True):
    """What the parent answers; neither a value nor an error for a variable that is not set."""

    connection: Connection | None = None
    variable: Variable | None = None
    error: str | None = None


class ImportedPlugin(Struct, frozen=True):
    """What an import came to.

    Attributes:
        begun: The import has begun; without a second line the process died of it.
        error: Why it failed, in one line.
        type: The declaration, of a connection type.
    """

    begun: bool = False
    error: str | None = None
    type: ConnectionType | None = None
