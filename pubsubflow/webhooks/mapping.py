"""Decides what becomes of a request to a webhook: an event, or nothing."""

from hashlib import blake2b
from typing import Any

import msgspec
from msgspec import Struct

from pubsubflow.model.expressions import Context, compile_expression, make_context
from pubsubflow.model.webhooks import (
    AnyVerifier,
    GitHub,
    GitLab,
    HookSpec,
    Slack,
    StandardWebhooks,
    Stripe,
)
from pubsubflow.model.wire.commands import PostEvents
from pubsubflow.model.wire.messages import NewEvent
from pubsubflow.webhooks.parse import Told, Unmappable, check_depth

MAX_PARTITION_CHARACTERS = 512
_LONGEST_MARK = 200
_FAILURES = (KeyError, TypeError, ValueError, RuntimeError, ArithmeticError, IndexError)

_MARK_HEADERS: dict[type, tuple[str, ...]] = {
    StandardWebhooks: ("webhook-id",),
    GitHub: ("x-github-delivery",),
    # Deliveries that follow from one another share the event's UUID, so the newer header is better.
    GitLab: ("idempotency-key", "x-gitlab-event-uuid"),
    Stripe: (),
    Slack: (),
}
_ANY_MARK = ("webhook-id", "x-github-delivery", "idempotency-key", "x-gitlab-event-uuid")
_MARK_FIELDS: dict[type, str] = {Stripe: "id", Slack: "event_id"}


class Filtered(Struct, frozen=True):
    """A request makes no event, and why."""

    reason: str


class Pong(Struct, frozen=True):
    """A request only asks whether somebody is there; `challenge` is what it wants to hear."""

    challenge: str | None = None


def greets(verifier: AnyVerifier, told: Told) -> Pong | None:
    """Return the answer to a request with which a sender checks the address, None for others."""
    if isinstance(verifier, GitHub) and told.headers.get("x-github-event") == "ping":
        return Pong()
    body = told.body
    if isinstance(verifier, Slack) and isinstance(body, dict):
        challenge = body.get("challenge")
        if body.get("type") == "url_verification" and isinstance(challenge, str):
            return Pong(challenge)
    return None


def decide(hook: HookSpec, told: Told) -> PostEvents | Filtered:
    """Return the event that a request makes, or why it makes none.

    Raises:
        Unmappable: An expression fails, or gives what an event cannot hold.
    """
    context = _context(hook, told)
    if hook.when is not None:
        try:
            value = compile_expression(hook.when).execute(context)
        except _FAILURES as error:
            return Filtered(_failure(hook.when, error))
        if value is not True:
            return Filtered(f"{hook.when} is {value!r}"[:500])
    extra = _extra(hook, told.body, context)
    partition = _partition(hook, context)
    mark = _mark(hook, told, context)
    return PostEvents(
        (NewEvent(hook.dataset, extra, partition),),
        (None if mark is None else f"hook:{hook.name}:{mark}",),
        f"webhook:{hook.name}",
    )


def _context(hook: HookSpec, told: Told) -> Context:
    """Return what the hook's expressions speak of, turned into the interpreter's form once."""
    texts = (hook.when, hook.partition, hook.id, *(hook.extra or {}).values())
    used = {name for text in texts if text for name in compile_expression(text).variables()}
    context = make_context()
    for name in used.intersection(("body", "headers", "query")):
        try:
            context.add_variable(name, getattr(told, name))
        except _FAILURES as error:
            raise Unmappable(f"expressions cannot see the {name}: {error}") from error
    return context


def _extra(hook: HookSpec, body: Any, context: Context) -> dict[str, Any]:
    if hook.extra is None:
        values = body if isinstance(body, dict) else {"body": body}
    else:
        values = {
            name: _value(f"extra[{name!r}]", text, context) for name, text in hook.extra.items()
        }
        check_depth(values)
    try:
        msgspec.msgpack.encode(values)
    except OverflowError:
        raise Unmappable("an integer has more than 64 bits; send it as text") from None
    return values


def _partition(hook: HookSpec, context: Context) -> str | None:
    if hook.partition is None:
        return None
    value = _name("partition", hook.partition, context)
    if value is not None and not 0 < len(value) <= MAX_PARTITION_CHARACTERS:
        raise Unmappable(
            f"partition: {hook.partition} gives {len(value)} characters; 1 to "
            f"{MAX_PARTITION_CHARACTERS} are possible"
        )
    return value


def _mark(hook: HookSpec, told: Told, context: Context) -> str | None:
    """Return what makes a request known when it is sent again, short enough for a key."""
    mark = None if hook.id is None else _name("id", hook.id, context)
    if mark is None:
        mark = sent_mark(hook.verify, told)
    if not mark:
        return None
    if len(mark) <= _LONGEST_MARK and mark.isprintable():
        return mark
    return "~" + blake2b(mark.encode(errors="surrogatepass"), digest_size=20).hexdigest()


def sent_mark(verifier: AnyVerifier, told: Told) -> str | None:
    """Return what the sender's kind has for it."""
    field = _MARK_FIELDS.get(type(verifier))
    if field is not None and isinstance(told.body, dict):
        value = told.body.get(field)
        if isinstance(value, str) and value:
            return value
    for name in _MARK_HEADERS.get(type(verifier), _ANY_MARK):
        if told.headers.get(name):
            return told.headers[name]
    return _cloud_event(told)


def _cloud_event(told: Told) -> str | None:
    """Return source and id of a CloudEvent: together they are what makes it the same."""
    source, mark = told.headers.get("ce-source"), told.headers.get("ce-id")
    kind = told.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/cloudevents+json" and isinstance(told.body, dict):
        source, mark = told.body.get("source"), told.body.get("id")
    return f"{source} {mark}" if source and mark else None


def _name(what: str, text: str, context: Context) -> str | None:
    value = _value(what, text, context)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise Unmappable(f"{what}: {text} gives a value that is no text: {value!r}"[:500])


def _value(what: str, text: str, context: Context) -> Any:
    """Return what an expression gives, as JSON would give it back."""
    try:
        value = compile_expression(text).execute(context)
        plain = msgspec.to_builtins(value, str_keys=True)
        return msgspec.json.decode(msgspec.json.encode(plain))
    except (*_FAILURES, RecursionError) as error:
        raise Unmappable(f"{what}: {_failure(text, error)}") from error


def _failure(text: str, error: Exception) -> str:
    return f"{text} failed: {type(error).__name__}: {error}".split("\n", 1)[0][:500]
