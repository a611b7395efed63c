"""Webhook declarations: the verifier of requests, and their mapping to events.

The verifiers here are values that declare a proof; `pubsubflow.webhooks.verify` checks it.
"""

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Protocol

from msgspec import Struct

from pubsubflow.errors import DefinitionError, InvalidInput
from pubsubflow.model.connections import read_reference

FIVE_MINUTES = timedelta(minutes=5)
ALGORITHMS = ("sha256", "sha384", "sha512", "sha1")
ENCODINGS = ("hex", "base64", "base64url")
SYMMETRIC, PUBLIC, PRIVATE = "whsec_", "whpk_", "whsk_"
PUBLIC_KEY_BYTES = 32
_SECRET_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")  # RFC 9110 §5.6.2


class Secret(Struct, frozen=True):
    """A reference to a secret that is looked up where requests arrive; only its name is stored.

    Args:
        name: `STRIPE` is the environment variable `PUBSUBFLOW_SECRET_STRIPE`, or `STRIPE`, or the
            only secret of the connection `STRIPE`; `connection:stripe` and `connection:stripe.key`
            are a connection's.

    Raises:
        DefinitionError: The name is invalid.
    """

    name: str

    def __post_init__(self) -> None:
        """Check the name."""
        # Users construct these values, and msgspec checks types only when it decodes.
        if not isinstance(self.name, str):
            raise DefinitionError(f"Secret({self.name!r}): a name is a text")
        try:
            refers = read_reference(self.name) is not None
        except InvalidInput as error:
            raise DefinitionError(f"Secret: {error}") from error
        if not refers and not _SECRET_NAME.match(self.name):
            raise DefinitionError(f"Secret({self.name!r}): a name holds letters, digits and _ only")


OneSecret = str | Secret
Secrets = OneSecret | Sequence[OneSecret]


class Verifier(Struct, frozen=True, tag_field="kind", tag=str.lower):
    """Declares how requests prove their origin. Printing one does not show its secrets."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []

    def secrets(self) -> tuple[OneSecret, ...]:
        """Return its secrets: any one of them verifies a request."""
        return ()

    def __post_init__(self) -> None:
        """Check the secrets."""
        kind = type(self).__name__
        for secret in self.secrets():
            if not isinstance(secret, str | Secret):
                raise DefinitionError(f'{kind}: a secret is a text or Secret("NAME")')
            if isinstance(secret, str):
                reason = self.invalid_reason(secret)
                if reason is not None:
                    raise DefinitionError(f"{kind}: {reason}")

    def invalid_reason(self, secret: str) -> str | None:
        """Return why a text is not a valid secret, or None; never the text itself."""
        if not secret:
            return "a secret is empty, so anybody could sign"
        if secret != secret.strip() or not secret.isprintable():
            return "a secret begins or ends with white space, or holds a control character"
        return None


class Signed(Verifier, frozen=True):
    """Requests are signed with, or carry, a shared secret.

    Args:
        secret: A text, `Secret("NAME")`, or a list of them while they are rotated.
    """

    secret: Secrets

    def secrets(self) -> tuple[OneSecret, ...]:
        """Return its secrets."""
        return as_tuple(self.secret, type(self).__name__)


class Timed(Signed, frozen=True):
    """Requests are signed together with the time.

    Args:
        tolerance: How far that time may differ from the server's, in both directions.
    """

    tolerance: timedelta = FIVE_MINUTES

    def __post_init__(self) -> None:
        """Check secrets and tolerance."""
        super().__post_init__()
        if not (isinstance(self.tolerance, timedelta) and self.tolerance > timedelta(0)):
            raise DefinitionError(
                f"{type(self).__name__}: tolerance is a timedelta above zero, not "
                f"{self.tolerance!r}"
            )


class StandardWebhooks(Timed, frozen=True):
    """https://www.standardwebhooks.com: secrets `whsec_…` (HMAC), `whpk_…` (ed25519 public key)."""

    def invalid_reason(self, secret: str) -> str | None:
        """Return why a text is not a key of Standard Webhooks, or None."""
        if secret.startswith(PRIVATE):
            return f"{PRIVATE}… is the sender's private key; verify with its {PUBLIC}…"
        try:
            key = standard_key(secret)
        except ValueError:
            return f"a secret is {SYMMETRIC} or {PUBLIC} and base64"
        if secret.startswith(PUBLIC) and len(key) != PUBLIC_KEY_BYTES:
            return f"{PUBLIC}… must hold the {PUBLIC_KEY_BYTES} bytes of an ed25519 key"
        return None if key else "a secret is empty, so anybody could sign"


class GitHub(Signed, frozen=True):
    """GitHub's `X-Hub-Signature-256`."""


class Stripe(Timed, frozen=True):
    """Stripe's `Stripe-Signature`."""


class Slack(Timed, frozen=True):
    """Slack's `X-Slack-Signature`; the secret is the app's signing secret."""


class GitLab(Verifier, frozen=True):
    """GitLab's `X-Gitlab-Token`; for its signing tokens, `whsec_…`, take StandardWebhooks.

    Args:
        token: As in Signed.
    """

    token: Secrets

    def secrets(self) -> tuple[OneSecret, ...]:
        """Return its tokens."""
        return as_tuple(self.token, "GitLab")


class Hmac(Signed, frozen=True):
    """An HMAC of the body in a header.

    Args:
        secret: As in Signed.
        header: Its name, such as `X-Shopify-Hmac-Sha256`.
        algorithm: `sha256`, `sha384`, `sha512` or `sha1`.
        encoding: `hex`, `base64` or `base64url`.
        prefix: What stands before the digest, such as `sha256=`.
    """

    header: str
    algorithm: str = "sha256"
    encoding: str = "hex"
    prefix: str = ""

    def __post_init__(self) -> None:
        """Check secrets, header, algorithm, encoding and prefix."""
        super().__post_init__()
        if not (isinstance(self.header, str) and _TOKEN.match(self.header)):
            raise DefinitionError(f"Hmac: {self.header!r} cannot be the name of a header")
        for name, value, known in (
            ("algorithm", self.algorithm, ALGORITHMS),
            ("encoding", self.encoding, ENCODINGS),
        ):
            if value not in known:
                raise DefinitionError(f"Hmac: {name}={value!r}; known: {', '.join(known)}")
        if not (isinstance(self.prefix, str) and self.prefix.isascii()):
            raise DefinitionError("Hmac: prefix must be an ASCII text")


class Bearer(Verifier, frozen=True):
    """`Authorization: Bearer …`.

    Args:
        token: As the secret of Signed.
    """

    token: Secrets

    def secrets(self) -> tuple[OneSecret, ...]:
        """Return its tokens."""
        return as_tuple(self.token, "Bearer")


class Basic(Verifier, frozen=True):
    """`Authorization: Basic …` (RFC 7617).

    Args:
        user: The name.
        password: As the secret of Signed.
    """

    user: str
    password: Secrets

    def __post_init__(self) -> None:
        """Check user and passwords."""
        super().__post_init__()
        if not isinstance(self.user, str) or ":" in self.user or not self.user.isprintable():
            raise DefinitionError("Basic: user is a text without ':' and control characters")

    def secrets(self) -> tuple[OneSecret, ...]:
        """Return its passwords."""
        return as_tuple(self.password, "Basic")


class Unverified(Verifier, frozen=True):
    """Every request of this machine is accepted without proof, and no other."""


class ReceivedRequest(Protocol):
    """A request as the verifier of a plugin sees it."""

    @property
    def headers(self) -> tuple[tuple[str, bytes], ...]:
        """Names in lower case and values, in their order."""

    @property
    def body(self) -> bytes:
        """The bytes that a signature covers."""

    @property
    def query(self) -> tuple[tuple[str, str], ...]:
        """Names and values of the query string, in their order."""

    def find(self, name: str) -> bytes | None:
        """Return a header that may be missing; refuse the request if it is there twice."""

    def one(self, name: str) -> bytes:
        """Return a header; refuse the request without it, or if it is there twice."""


class PluginVerifier(Verifier, frozen=True, kw_only=True):
    """Base of the verifiers of plugins, which are registered in `pubsubflow.verifiers`.

    A subclass is a frozen Struct, whose further fields are its serialised form: plain values.
    `verify` runs in the daemons with the role `api`, in a thread, for two seconds at most.

    Args:
        secret: A text, `Secret("NAME")`, a list of them while they are rotated, or None.
    """

    secret: Secrets | None = None

    def secrets(self) -> tuple[OneSecret, ...]:
        """Return its secrets."""
        return () if self.secret is None else as_tuple(self.secret, type(self).__name__)

    def verify(self, request: ReceivedRequest, secrets: Sequence[str], now: float) -> bool:
        """Return True if a request proves its origin; nothing else does.

        Compare signatures with `hmac.compare_digest`.

        Args:
            request: It.
            secrets: Those of `secret`, looked up; any one of them is enough.
            now: Seconds since 1970.

        Raises:
            NotVerified: It does not; the sender gets the text.
        """
        raise NotImplementedError(f"{type(self).__name__} needs `def verify(self, …)`")


class InstalledVerifier(Verifier, frozen=True, tag="plugin"):
    """The serialised form of a verifier of a plugin.

    Attributes:
        name: The name of its entry point.
        fields: Its fields but the secret.
        secret: Its secrets.
    """

    name: str
    fields: dict[str, Any] = {}
    secret: tuple[OneSecret, ...] = ()

    def secrets(self) -> tuple[OneSecret, ...]:
        """Return its secrets."""
        return self.secret


AnyVerifier = (
    StandardWebhooks
    | GitHub
    | Stripe
    | Slack
    | GitLab
    | Hmac
    | Bearer
    | Basic
    | Unverified
    | InstalledVerifier
)


class WebhookSpec(Struct, frozen=True, omit_defaults=True):
    """A webhook as its file declares it.

    Attributes:
        name: It is served at `/hooks/{name}`.
        dataset: URI of the dataset that gets an event for each request.
        verify: The verifier of requests.
        when: CEL; a request for which it is not true is answered and becomes no event.
        extra: Name → CEL: the event's extra; None for the body itself.
        partition: CEL: the event's partition.
        id: CEL: the idempotency key of requests; None for the header that the verifier's kind of
            sender uses.
        line: Line in its file.
    """

    name: str
    dataset: str
    verify: AnyVerifier
    when: str | None = None
    extra: Mapping[str, str] | None = None
    partition: str | None = None
    id: str | None = None
    line: int | None = None


def as_tuple(secret: Secrets, kind: str) -> tuple[OneSecret, ...]:
    """Return one or several secrets as a tuple.

    Raises:
        DefinitionError: The list is empty, or not a list.
    """
    if isinstance(secret, str | Secret):
        return (secret,)
    if not isinstance(secret, list | tuple) or not secret:
        raise DefinitionError(
            f'{kind}: a secret is a text or Secret("NAME"), or a list of at least one of them'
        )
    return tuple(secret)


def standard_key(secret: str) -> bytes:
    """Return the key in a secret of Standard Webhooks.

    Raises:
        ValueError: It is not base64.
    """
    # Senders show secrets with and without the padding.
    text = secret.removeprefix(PUBLIC if secret.startswith(PUBLIC) else SYMMETRIC).rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("not base64") from error
