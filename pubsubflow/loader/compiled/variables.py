"""Variables in manifests: digests of the values that imports have used."""

import hashlib
from typing import Any

import msgspec

_DIGEST_BYTES = 16


def digest_of_variable(name: str, value: tuple[Any, ...]) -> str:
    """Return a digest of a variable's value.

    Args:
        name: The variable's: equal values of two variables have different digests.
        value: In a tuple, which is empty for a variable that is not set: its digest is empty.
    """
    if not value:
        return ""
    data = msgspec.json.encode([name, value[0]], order="deterministic")
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).hexdigest()
