"""Keys that callers choose: partitions, idempotency keys, keys of backfills."""

from pubsubflow.errors import InvalidInput

MAX_KEY_CHARACTERS = 500


def check_key(key: str | None) -> None:
    """Check a key that a caller chose.

    Raises:
        InvalidInput: It is too long for an index, or holds NUL.
    """
    if key is not None and (len(key) > MAX_KEY_CHARACTERS or "\x00" in key):
        raise InvalidInput(
            f"the key {key[:40]!r}… must have at most {MAX_KEY_CHARACTERS} characters and no NUL"
        )
