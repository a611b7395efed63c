"""Raw webhook requests, as they were received, before verification."""

from msgspec import Struct

from pubsubflow.errors import InvalidInput


class NotVerified(InvalidInput):
    """A request does not prove its origin; the text is for its sender."""


class WebhookRequest(Struct, frozen=True):
    """A request to a webhook.

    Attributes:
        headers: Names in lower case and values, in their order.
        body: The bytes that a signature covers.
        query: Names and values of the query string, in their order.
    """

    headers: tuple[tuple[str, bytes], ...]
    body: bytes
    query: tuple[tuple[str, str], ...] = ()

    def find(self, name: str) -> bytes | None:
        """Return a header that may be missing.

        Raises:
            NotVerified: It is there more than once, so that it is ambiguous which one counts.
        """
        found = [value for key, value in self.headers if key == name]
        if len(found) > 1:
            raise NotVerified(f"the header {name} was sent {len(found)} times")
        return found[0] if found else None

    def one(self, name: str) -> bytes:
        """Return a required header.

        Raises:
            NotVerified: It is missing or there more than once.
        """
        found = self.find(name)
        if found is None:
            raise NotVerified(f"the header {name} is missing")
        return found

    def text(self, name: str) -> str | None:
        """Return the first header of that name as text, if there is one."""
        found = next((value for key, value in self.headers if key == name), None)
        return None if found is None else found.decode(errors="replace")
