"""Redaction of the secrets of connections and variables in the output and the errors of tasks."""

from typing import Any, Protocol

import msgspec

from pubsubflow.model.connections import MASK
from pubsubflow.model.wire.messages import TaskError
from pubsubflow.runner.log_lines import split_records

MIN_CHARACTERS = 4
"""Shorter secrets are not redacted: they stand in half of all lines by chance."""

_OURS = frozenset({"t", "s", "level"})
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class HoldsSecrets(Protocol):
    """A connection or variable."""

    def redacted_values(self) -> frozenset[str]:
        """Return the strings to mask."""


class Redactor:
    """Redacts the secrets that tasks of one process have fetched, for the life of the process."""

    def __init__(self) -> None:
        self._secrets: list[str] = []
        self._json_secrets: list[str] = []

    def add(self, holder: HoldsSecrets) -> None:
        """Redact secrets from now on, each line of those that have several."""
        lines = {line.strip() for text in holder.redacted_values() for line in text.splitlines()}
        found = {line for line in lines if len(line) >= MIN_CHARACTERS} | set(self._secrets)
        # Longest first: a secret that contains another is replaced whole.
        self._secrets = sorted(found, key=len, reverse=True)
        self._json_secrets = [_encode(text).decode()[1:-1] for text in self._secrets]

    def text(self, text: str) -> str:
        """Return a text with `***` in the place of secrets."""
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return text

    def error(self, error: TaskError) -> TaskError:
        """Return an error without secrets in its message and traceback."""
        if not self._secrets:
            return error
        return msgspec.structs.replace(
            error,
            message=self.text(error.message),
            traceback=self.text(error.traceback),
            full_traceback=self.text(error.full_traceback),
        )

    def lines(self, lines: str) -> str:
        """Return lines of output, in JSON, without secrets."""
        if not any(secret in lines for secret in self._json_secrets):
            return lines
        return "".join(map(self._line, split_records(lines)))

    def _line(self, line: str) -> str:
        if not any(secret in line for secret in self._json_secrets):
            return line
        record = {
            self.text(name): value if name in _OURS else self.value(value)
            for name, value in _decode(line).items()
        }
        return _encode(record).decode() + "\n"

    def value(self, value: Any) -> Any:
        """Return a JSON value without secrets in its texts, names and numbers."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(name): self.value(each) for name, each in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(each) for each in value]
        if isinstance(value, int | float) and any(secret in str(value) for secret in self._secrets):
            return MASK
        return value
