"""Webhooks as users declare them."""

import re
from collections.abc import Mapping

from pubsubflow.authoring.datasets import Dataset, uri_of
from pubsubflow.authoring.loading.registry import collect_hook
from pubsubflow.authoring.schedules.cel import checked
from pubsubflow.authoring.source_location import caller, mistake, module_file
from pubsubflow.model.webhooks import AnyVerifier, HookSpec, Verifier

NAMES = ("body", "headers", "query")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")


class Webhook:
    """A door for another system: each request that is believed becomes an event of a dataset.

    It belongs to the file that declares it and is served at `POST /hooks/{name}`. The expressions
    are CEL over `body`, `headers` (names in lower case) and `query`.

    Args:
        name: Letters, digits, `-`, `_` and `.`, at most 100; unique.
        dataset: What gets the events, a Dataset or a URI.
        verify: Whose requests are believed: one of `pubsubflow.webhooks`' verifiers.
        when: Only requests for which this is true make events.
        extra: Name → expression, what the event holds; the body itself if left out.
        partition: The event's partition.
        id: What makes a request known again when it is sent again; the sender's own mark of a
            delivery if left out.

    Raises:
        DefinitionError: Something about it cannot be; the message names it and its place.
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
        self.place = caller()
        self.module_file = module_file()
        if not (isinstance(name, str) and _NAME.match(name)):
            raise mistake(
                f"Webhook({name!r}): a name has letters, digits, '-', '_' and '.', at most 100, "
                "and begins with a letter or digit"
            )
        self.name = name
        self._what = f"Webhook({name!r})"
        if not isinstance(verify, AnyVerifier):
            raise mistake(
                f"{self._what}: verify says whose requests are believed, as in "
                f'verify=GitHub(Secret("GITHUB")), or verify=Unverified(); not {verify!r}'
            )
        self._spec = HookSpec(
            name,
            uri_of(dataset),
            verify,
            when=self._expression("when", when),
            extra=self._extra(extra),
            partition=self._expression("partition", partition),
            id=self._expression("id", id),
            line=self.place.line if self.place else None,
        )
        collect_hook(name, self, self.place)

    def __repr__(self) -> str:
        return self._what

    def to_spec(self) -> HookSpec:
        """Return the serialised form."""
        return self._spec

    def _expression(self, keyword: str, text: str | None) -> str | None:
        return None if text is None else checked(text, NAMES, f"{self._what}: {keyword}")

    def _extra(self, extra: Mapping[str, str] | None) -> dict[str, str] | None:
        if extra is None:
            return None
        if not isinstance(extra, Mapping) or not all(isinstance(name, str) for name in extra):
            raise mistake(f"{self._what}: extra is a dict of names and CEL expressions")
        return {
            name: checked(text, NAMES, f"{self._what}: extra[{name!r}]")
            for name, text in extra.items()
        }
