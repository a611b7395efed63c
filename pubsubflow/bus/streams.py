"""The streams and consumers that pubsubflow keeps in JetStream, and JetStream's API for them.

The API is JSON over requests to ``$JS.API.>``; times are nanoseconds.
Source: https://docs.nats.io/reference/reference-protocols/nats_api_reference
"""

from typing import Any, Protocol, TypeVar

import msgspec
import structlog

from pubsubflow.errors import BusUnavailable, ConfigError

log = structlog.get_logger(__name__)

STREAM_IN = "PSF_IN"
STREAM_TASK = "PSF_TASK"
STREAM_EVT = "PSF_EVT"
STREAMS = (STREAM_IN, STREAM_TASK, STREAM_EVT)

_NANOSECONDS = 1_000_000_000
_EVENT_DAYS = 3
_EVENT_MAX_BYTES = 512 * 1024 * 1024
_MAX_WAITING_PULLS = 4_096
_API_SECONDS = 2.0

_STREAM_NOT_FOUND = 10059
_CONSUMER_NOT_FOUND = 10014
_STREAM_EXISTS = 10058
_NO_CLUSTER = 10074
_SERVER_SIDE = 500
"""Codes from here on are the server's own trouble: worth another try."""
_NO_JETSTREAM = frozenset({10039, 10076})

Config = dict[str, Any]


class Requester(Protocol):
    """What asks a subject and waits for one answer."""

    async def request(self, subject: str, payload: bytes, timeout_seconds: float) -> bytes:
        """Ask; raise BusUnavailable if nobody answers."""


class ApiRefusal(Exception):  # noqa: N818 - never leaves this package
    """JetStream's API said no."""

    def __init__(self, code: int, err_code: int, description: str) -> None:
        super().__init__(f"{description} ({err_code})")
        self.code = code
        self.err_code = err_code

    def translated(self, what: str) -> BusUnavailable | ConfigError:
        """Say it in our own exceptions."""
        if self.err_code in _NO_JETSTREAM:
            return ConfigError("this NATS has no JetStream: start nats-server with -js")
        if self.code >= _SERVER_SIDE and self.err_code != _NO_CLUSTER:
            return BusUnavailable(f"JetStream cannot set up {what} now: {self}")
        return ConfigError(f"JetStream refuses {what}: {self}")


class _Error(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class ApiAnswer(msgspec.Struct):
    """What every answer of JetStream's API may hold."""

    error: _Error | None = None


A = TypeVar("A", bound=ApiAnswer)


class _Answer(ApiAnswer):
    config: Config = msgspec.field(default_factory=dict)
    num_pending: int = 0
    num_ack_pending: int = 0


class Unhandled(msgspec.Struct, frozen=True):
    """What a consumer has not finished.

    Attributes:
        waiting: Messages that nobody has got yet.
        delivered: Messages that somebody has got and not acknowledged.
    """

    waiting: int
    delivered: int


def stream_configs(replicas: int) -> list[Config]:
    """Describe the three streams as JetStream's API wants them.

    Args:
        replicas: On how many servers each is kept.
    """
    shared: Config = {"storage": "file", "num_replicas": replicas}
    return [
        {"name": STREAM_IN, "subjects": ["psf.in.>"], "retention": "workqueue", **shared},
        {
            # One message a subject: a task that waits already is refused (10077), not doubled.
            "name": STREAM_TASK,
            "subjects": ["psf.task.>"],
            "retention": "workqueue",
            "max_msgs_per_subject": 1,
            "discard": "new",
            "discard_new_per_subject": True,
            **shared,
        },
        {
            "name": STREAM_EVT,
            "subjects": ["psf.evt.>"],
            "retention": "limits",
            "max_age": _EVENT_DAYS * 24 * 3600 * _NANOSECONDS,
            "max_bytes": _EVENT_MAX_BYTES,
            "discard": "old",
            **shared,
        },
    ]


def consumer_config(
    durable: str, filter_subject: str, *, ack_wait_seconds: float, max_ack_pending: int
) -> Config:
    """Describe a durable pull consumer as JetStream's API wants it.

    Args:
        durable: Its name.
        filter_subject: Which messages of the stream it gets.
        ack_wait_seconds: After how long without acknowledgement a message comes again.
        max_ack_pending: How many may be unacknowledged, over all who pull.
    """
    return {
        "durable_name": durable,
        "filter_subject": filter_subject,
        "deliver_policy": "all",
        "ack_policy": "explicit",
        "ack_wait": int(ack_wait_seconds * _NANOSECONDS),
        "max_deliver": -1,
        "max_ack_pending": max_ack_pending,
        "max_waiting": _MAX_WAITING_PULLS,
    }


async def ensure_stream(bus: Requester, config: Config) -> None:
    """Create the stream, or bring its settings up to date.

    Raises:
        BusUnavailable: JetStream does not answer or has no leader now.
        ConfigError: JetStream cannot make the stream so.
    """
    name = config["name"]
    try:
        found = await _find(bus, f"STREAM.INFO.{name}", _STREAM_NOT_FOUND)
        if found is None:
            await _create_stream(bus, config)
        elif any(found.get(key) != value for key, value in config.items()):
            await _ask(bus, f"STREAM.UPDATE.{name}", found | config)
            log.info("bus.stream_updated", stream=name)
    except ApiRefusal as refusal:
        raise refusal.translated(f"stream {name}") from refusal


async def _create_stream(bus: Requester, config: Config) -> None:
    name = config["name"]
    try:
        await _ask(bus, f"STREAM.CREATE.{name}", config)
    except ApiRefusal as refusal:
        if refusal.err_code != _STREAM_EXISTS:
            raise
        await _ask(bus, f"STREAM.UPDATE.{name}", config)  # somebody was faster
    log.info("bus.stream_created", stream=name)


async def ensure_consumer(bus: Requester, stream: str, config: Config) -> bool:
    """Create or update a durable consumer.

    Returns:
        False if the stream itself is missing.

    Raises:
        BusUnavailable: JetStream does not answer or has no leader now.
        ConfigError: JetStream cannot make the consumer so.
    """
    durable = config["durable_name"]
    body = {"stream_name": stream, "config": config}
    try:
        await _ask(bus, f"CONSUMER.CREATE.{stream}.{durable}.{config['filter_subject']}", body)
    except ApiRefusal as refusal:
        if refusal.err_code == _STREAM_NOT_FOUND:
            return False
        raise refusal.translated(f"consumer {durable} of {stream}") from refusal
    return True


async def delete_consumer(bus: Requester, stream: str, durable: str) -> Config | None:
    """Delete a consumer and return how it was configured; None if there was none.

    Raises:
        BusUnavailable: JetStream does not answer or has no leader now.
        ConfigError: JetStream refuses.
    """
    place = f"{stream}.{durable}"
    try:
        config = await _find(bus, f"CONSUMER.INFO.{place}", _CONSUMER_NOT_FOUND)
        if config is not None:
            await _find(bus, f"CONSUMER.DELETE.{place}", _CONSUMER_NOT_FOUND)
    except ApiRefusal as refusal:
        raise refusal.translated(f"consumer {durable} of {stream}") from refusal
    return config


async def count_unhandled(bus: Requester, stream: str, durable: str) -> Unhandled:
    """Count what a consumer has not finished; nothing, if there is none.

    Raises:
        BusUnavailable: JetStream does not answer or has no leader now.
        ConfigError: JetStream refuses.
    """
    try:
        found = await _ask(bus, f"CONSUMER.INFO.{stream}.{durable}", None)
    except ApiRefusal as refusal:
        if refusal.err_code in (_CONSUMER_NOT_FOUND, _STREAM_NOT_FOUND):
            return Unhandled(0, 0)
        raise refusal.translated(f"consumer {durable} of {stream}") from refusal
    return Unhandled(found.num_pending, found.num_ack_pending)


async def _find(bus: Requester, call: str, missing: int) -> Config | None:
    try:
        return (await _ask(bus, call, None)).config
    except ApiRefusal as refusal:
        if refusal.err_code == missing:
            return None
        raise


async def _ask(bus: Requester, call: str, body: Config | None) -> _Answer:
    return await ask(bus, call, body, _Answer)


async def ask(bus: Requester, call: str, body: Config | None, kind: type[A]) -> A:
    """Ask JetStream's API and return its answer, typed.

    Raises:
        ApiRefusal: It says no.
        BusUnavailable: It does not answer.
    """
    payload = b"" if body is None else msgspec.json.encode(body)
    try:
        data = await bus.request(f"$JS.API.{call}", payload, _API_SECONDS)
    except BusUnavailable as away:
        text = f"JetStream is away ({away}): is nats-server started with -js?"
        raise BusUnavailable(text) from away
    answer = msgspec.json.decode(data, type=kind)
    if answer.error is not None:
        error = answer.error
        raise ApiRefusal(error.code, error.err_code, error.description)
    return answer
