"""Webhooks are declared in DAG files: requests of another system become dataset events."""

import re
from collections.abc import Mapping

from pubsubflow.authoring.datasets import Dataset, uri_of
from pubsubflow.authoring.registry import collect_hook
from pubsubflow.authoring.schedules.cel import checked_expression
from pubsubflow.authoring.source_location import caller, definition_error, module_file
from pubsubflow.errors import DefinitionError
from pubsubflow.model.webhooks import AnyVerifier, PluginVerifier, Verifier, WebhookSpec
from pubsubflow.plugins import encode_verifier

NAMES = ("body", "headers", "query")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")


class Webhook:
    """An endpoint for another system: each authentic request becomes an event of a dataset.

    It belongs to the file that declares it and is served at `POST /hooks/{name}`. The expressions
    are CEL over `body`, `headers` (names in lower case) and `query`.

    Args:
        name: Letters, digits, `-`, `_` and `.`, at most 100; unique.
        dataset: The dataset of the events, a Dataset or a URI.
        verify: How requests are authenticated: one of `pubsubflow.webhooks`' verifiers, or of a
            plugin's.
        when: Only requests for which this is true make events.
        extra: Name → expression, the event's `extra`; the body itself if left out.
        partition: The event's partition.
        id: The idempotency key of a request, the same when it is sent again; the sender's own
            delivery id if left out.

    Raises:
        DefinitionError: An argument is invalid; the message names it and its location.
    """

    def __init__(
        self,
        name: str,
        *,
        dataset: Dataset | str,
        verify: Verifier,
        when: str | None = None,
        extra: Mapping[str, str] | None = None,
        partition: str | None = None,
        id: str | None = None,
    ) -> None:
        self.location = caller()
        self.module_file = module_file()
        if not (isinstance(name, str) and _NAME.match(name)):
            raise definition_error(
                f"Webhook({name!r}): a name has letters, digits, '-', '_' and '.', at most 100, "
                "and begins with a letter or digit"
            )
        self.name = name
        self._what = f"Webhook({name!r})"
        if isinstance(verify, PluginVerifier):
            try:
                verify = encode_verifier(verify)
            except DefinitionError as error:
                raise definition_error(f"{self._what}: {error.message}") from error
        if not isinstance(verify, AnyVerifier):
            raise definition_error(
                f"{self._what}: verify takes a verifier, as in "
                f'verify=GitHub(Secret("GITHUB")), or verify=Unverified(); not {verify!r}'
            )
        self._spec = WebhookSpec(
            name,
            uri_of(dataset),
            verify,
            when=self._expression("when", when),
            extra=self._extra(extra),
            partition=self._expression("partition", partition),
            id=self._expression("id", id),
            line=self.location.line if self.location else None,
        )
        collect_hook(name, self, self.location)

    def __repr__(self) -> str:
        return self._what

    def to_spec(self) -> WebhookSpec:
        """Return the serialised form."""
        return self._spec

    def _expression(self, keyword: str, text: str | None) -> str | None:
        return None if text is None else checked_expression(text, NAMES, f"{self._what}: {keyword}")

    def _extra(self, extra: Mapping[str, str] | None) -> dict[str, str] | None:
        if extra is None:
            return None
        if not isinstance(extra, Mapping) or not all(isinstance(name, str) for name in extra):
            raise definition_error(f"{self._what}: extra is a dict of names and CEL expressions")
        return {
            name: checked_expression(text, NAMES, f"{self._what}: extra[{name!r}]")
            for name, text in extra.items()
        }
