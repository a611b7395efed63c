"""The mapping of webhook requests decides whether a request becomes an event, and which."""

from hashlib import blake2b
from typing import Any

import msgspec
from msgspec import Struct

from pubsubflow.model.cel.expressions import CelContext, compile_expression, new_cel_context
from pubsubflow.model.webhooks import (
    AnyVerifier,
    GitHub,
    GitLab,
    Slack,
    StandardWebhooks,
    Stripe,
    WebhookSpec,
)
from pubsubflow.model.wire.commands import RecordEvents
from pubsubflow.model.wire.messages import NewEvent
from pubsubflow.webhooks.parse import ParsedRequest, Unmappable, check_value

MAX_PARTITION_CHARACTERS = 512
_MAX_ID_CHARACTERS = 200
_FAILURES = (KeyError, TypeError, ValueError, RuntimeError, ArithmeticError, IndexError)

_ID_HEADERS: dict[type, tuple[str, ...]] = {
    StandardWebhooks: ("webhook-id",),
    GitHub: ("x-github-delivery",),
    # Deliveries caused by one event share its UUID: the newer header identifies the delivery.
    GitLab: ("idempotency-key", "x-gitlab-event-uuid"),
    Stripe: (),
    Slack: (),
}
_ANY_ID_HEADERS = ("webhook-id", "x-github-delivery", "idempotency-key", "x-gitlab-event-uuid")
_ID_FIELDS: dict[type, str] = {Stripe: "id", Slack: "event_id"}


class Filtered(Struct, frozen=True):
    """A request becomes no event, for this reason."""

    reason: str


class ChallengeReply(Struct, frozen=True):
    """The reply to a request that only checks the address; it must contain `challenge`, if any."""

    challenge: str | None = None


def challenge_reply(verifier: AnyVerifier, request: ParsedRequest) -> ChallengeReply | None:
    """Return the reply to a request with which a sender checks the address; None for others."""
    if isinstance(verifier, GitHub) and request.headers.get("x-github-event") == "ping":
        return ChallengeReply()
    body = request.body
    if isinstance(verifier, Slack) and isinstance(body, dict):
        challenge = body.get("challenge")
        if body.get("type") == "url_verification" and isinstance(challenge, str):
            return ChallengeReply(challenge)
    return None


def decide(hook: WebhookSpec, request: ParsedRequest) -> RecordEvents | Filtered:
    """Return the event of a request, or why it has none.

    Raises:
        Unmappable: An expression fails, or its value does not fit into an event.
    """
    context = _context(hook, request)
    if hook.when is not None:
        try:
            value = compile_expression(hook.when).execute(context)
        except _FAILURES as error:
            return Filtered(_failure(hook.when, error))
        if value is not True:
            return Filtered(f"{hook.when} is {value!r}"[:500])
    extra = _extra(hook, request.body, context)
    partition = _partition(hook, context)
    sent_id = _delivery_id(hook, request, context)
    return RecordEvents(
        (NewEvent(hook.dataset, extra, partition),),
        (None if sent_id is None else f"hook:{hook.name}:{sent_id}",),
        f"webhook:{hook.name}",
    )


def _context(hook: WebhookSpec, request: ParsedRequest) -> CelContext:
    """Return the variables that the webhook's expressions use, in the form of the interpreter."""
    texts = (hook.when, hook.partition, hook.id, *(hook.extra or {}).values())
    used = {name for text in texts if text for name in compile_expression(text).variables()}
    context = new_cel_context()
    for name in used.intersection(("body", "headers", "query")):
        try:
            context.add_variable(name, getattr(request, name))
        except _FAILURES as error:
            raise Unmappable(f"expressions cannot see the {name}: {error}") from error
    return context


def _extra(hook: WebhookSpec, body: Any, context: CelContext) -> dict[str, Any]:
    if hook.extra is None and isinstance(body, dict):
        return body  # it was checked when it was parsed
    if hook.extra is None:
        values = {"body": body}
    else:
        values = {
            name: _value(f"extra[{name!r}]", text, context) for name, text in hook.extra.items()
        }
    check_value(values, "extra")
    return values


def _partition(hook: WebhookSpec, context: CelContext) -> str | None:
    if hook.partition is None:
        return None
    value = _name("partition", hook.partition, context)
    if value is not None and not 0 < len(value) <= MAX_PARTITION_CHARACTERS:
        raise Unmappable(
            f"partition: {hook.partition} gives {len(value)} characters; 1 to "
            f"{MAX_PARTITION_CHARACTERS} are allowed"
        )
    return value


def _delivery_id(hook: WebhookSpec, request: ParsedRequest, context: CelContext) -> str | None:
    """Return the id that a repeated request shares, short enough for an idempotency key."""
    found = None if hook.id is None else _name("id", hook.id, context)
    if found is None:
        found = delivery_id(hook.verify, request)
    if not found:
        return None
    if len(found) <= _MAX_ID_CHARACTERS and found.isprintable():
        return found
    # The prefix keeps digests apart from ids that senders write.
    return "~" + blake2b(found.encode(errors="surrogatepass"), digest_size=20).hexdigest()


def delivery_id(verifier: AnyVerifier, request: ParsedRequest) -> str | None:
    """Return the id by which the verifier's kind of sender identifies a delivery; None without."""
    field = _ID_FIELDS.get(type(verifier))
    if field is not None and isinstance(request.body, dict):
        value = request.body.get(field)
        if isinstance(value, str) and value:
            return value
    for name in _ID_HEADERS.get(type(verifier), _ANY_ID_HEADERS):
        if request.headers.get(name):
            return request.headers[name]
    return _cloud_event(request)


def _cloud_event(request: ParsedRequest) -> str | None:
    """Return source and id of a CloudEvent, which together identify it; None for other requests."""
    source, event_id = request.headers.get("ce-source"), request.headers.get("ce-id")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/cloudevents+json" and isinstance(request.body, dict):
        source, event_id = request.body.get("source"), request.body.get("id")
    return f"{source} {event_id}" if source and event_id else None


def _name(what: str, text: str, context: CelContext) -> str | None:
    value = _value(what, text, context)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise Unmappable(f"{what}: {text} gives a value that is not a text: {value!r}"[:500])


def _value(what: str, text: str, context: CelContext) -> Any:
    """Return the value of an expression, as decoded from JSON."""
    try:
        # There and back: a value of CEL, such as a timestamp, becomes what it is in JSON.
        value = compile_expression(text).execute(context)
        plain = msgspec.to_builtins(value, str_keys=True)
        decoded = msgspec.json.decode(msgspec.json.encode(plain))
    except (*_FAILURES, RecursionError) as error:
        raise Unmappable(f"{what}: {_failure(text, error)}") from error
    # Of the value before it was encoded, which makes null of the NaN and infinity that CEL has.
    check_value(plain, what)
    return decoded


def _failure(text: str, error: Exception) -> str:
    return f"{text} failed: {type(error).__name__}: {error}".split("\n", 1)[0][:500]
