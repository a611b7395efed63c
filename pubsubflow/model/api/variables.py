"""JSON types of variables, with masks for the values of secret ones."""

from datetime import datetime
from typing import Any

from msgspec import Struct

from pubsubflow.model.api.connections import Source
from pubsubflow.model.revisions import connection_revision
from pubsubflow.model.values.variables import Variable
from pubsubflow.redaction import MASK


class VariableView(Struct, frozen=True, kw_only=True):
    """A variable; the value of a secret one is `***`.

    Attributes:
        secret: Whether its value is stored encrypted and never shown.
        source: `environment` when a daemon's `PUBSUBFLOW_VAR_NAME` stands before the store.
        revision: Differs after every change; see `If-Match`; `absent` when it is not stored.
        updated_at: When it was last set.
    """

    name: str
    value: Any
    secret: bool
    description: str | None = None
    source: Source = "store"
    revision: str
    updated_at: datetime | None = None

    @classmethod
    def of(
        cls,
        variable: Variable,
        version: int | None = None,
        updated_at: datetime | None = None,
        source: Source = "store",
    ) -> "VariableView":
        """Return the representation of a variable, with a mask for a secret value."""
        return cls(
            name=variable.name,
            value=MASK if variable.secret else variable.value,
            secret=variable.secret,
            description=variable.description,
            source=source,
            revision=connection_revision(version),
            updated_at=updated_at,
        )
