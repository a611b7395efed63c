"""Streams and consumers in JetStream, created and updated through its API.

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
STREAM_STATE = "PSF_STATE"
STREAMS = (STREAM_IN, STREAM_TASK, STREAM_EVT)
"""The streams of messages; what `STREAM_STATE` keeps is the last message of each subject."""

_NANOSECONDS = 1_000_000_000
_EVENT_DAYS = 3
_EVENT_MAX_BYTES = 512 * 1024 * 1024
# A stream keeps an index of its subjects in memory, and each event and run has one of its own. So
# they are stored under 8 of each kind, by a hash: all messages of a run under the same one. Core
# subscribers see the subjects as published. A server before 2.10 ignores this.
_EVENT_STORED_AS = {
    "src": "psf.evt.*.*",
    "dest": "psf.evt.{{wildcard(1)}}.{{partition(8,2)}}",
}
_MAX_WAITING_PULLS = 4_096
_API_SECONDS = 2.0

STREAM_NOT_FOUND = 10059
CONSUMER_NOT_FOUND = 10014
_STREAM_EXISTS = 10058
_NO_MESSAGE = 10037
_NO_CLUSTER = 10074
_TOO_FEW_SERVERS = frozenset({10005, _NO_CLUSTER})
_NO_STORAGE = 10047
_INVALID_JSON = 10025
"""Also a value that the server does not know."""
_SERVER_SIDE = 500
"""Codes from here on are errors of the server, which a retry may overcome."""
_NO_JETSTREAM = frozenset({10039, 10076})

Config = dict[str, Any]


class Requester(Protocol):
    """A client that sends requests."""

    async def request(self, subject: str, payload: bytes, timeout_seconds: float, /) -> bytes:
        """Send a request and return the reply; raise BusUnavailable without one."""


class ApiError(Exception):
    """An error that JetStream's API returned."""

    def __init__(self, code: int, err_code: int, description: str) -> None:
        super().__init__(f"{description} ({err_code})")
        self.code = code
        self.err_code = err_code

    def translate(self, what: str) -> BusUnavailable | ConfigError:
        """Return the public exception, for an operation on `what`."""
        if self.err_code in _NO_JETSTREAM:
            return ConfigError("this NATS has no JetStream: start nats-server with -js")
        if self.err_code == _NO_STORAGE:
            return ConfigError(
                f"JetStream has too little storage for {what} ({self}): free space on the disk of "
                "nats-server, or raise its max_file_store"
            )
        if self.code >= _SERVER_SIDE and self.err_code != _NO_CLUSTER:
            return BusUnavailable(f"JetStream cannot set up {what} now: {self}")
        return ConfigError(f"JetStream refuses {what}: {self}")


class _Error(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class ApiResponse(msgspec.Struct):
    """The common part of all responses of JetStream's API."""

    error: _Error | None = None


A = TypeVar("A", bound=ApiResponse)


class _ConfigResponse(ApiResponse):
    config: Config = msgspec.field(default_factory=dict)


def stream_configs(replicas: int) -> list[Config]:
    """Return the configurations of the streams.

    Args:
        replicas: Number of servers that keep each stream.
    """
    shared: Config = {"storage": "file", "num_replicas": replicas}
    return [
        {"name": STREAM_IN, "subjects": ["psf.in.>"], "retention": "workqueue", **shared},
        {
            # One message a subject: a task that is queued already is refused (10077), not doubled.
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
            "subject_transform": _EVENT_STORED_AS,
            "retention": "limits",
            "max_age": _EVENT_DAYS * 24 * 3600 * _NANOSECONDS,
            "max_bytes": _EVENT_MAX_BYTES,
            "discard": "old",
            **shared,
        },
        {
            "name": STREAM_STATE,
            "subjects": ["psf.state.>"],
            "retention": "limits",
            "max_msgs_per_subject": 1,
            "discard": "old",
            **shared,
        },
    ]


def consumer_config(
    durable: str,
    filter_subject: str,
    *,
    ack_wait_seconds: float,
    max_ack_pending: int,
    ranked: bool = False,
) -> Config:
    """Return the configuration of a durable pull consumer.

    Args:
        durable: Its name.
        filter_subject: Which messages of the stream it gets.
        ack_wait_seconds: Time without an acknowledgement until a message is redelivered.
        max_ack_pending: Maximum number of unacknowledged messages, over all clients.
        ranked: Whether requests have a priority; all are of one group, with the consumer's name.
    """
    ranks: Config = {"priority_groups": [durable], "priority_policy": "prioritized"}
    return {
        "durable_name": durable,
        "filter_subject": filter_subject,
        "deliver_policy": "all",
        "ack_policy": "explicit",
        "ack_wait": int(ack_wait_seconds * _NANOSECONDS),
        "max_deliver": -1,
        "max_ack_pending": max_ack_pending,
        "max_waiting": _MAX_WAITING_PULLS,
        **(ranks if ranked else {}),
    }


async def ensure_stream(bus: Requester, config: Config, *, flexible: bool = False) -> int:
    """Create a stream, or update its configuration; return the number of its replicas.

    Args:
        bus: The connection.
        config: The configuration.
        flexible: Whether it may have fewer replicas, if there are too few servers, or more.

    Raises:
        BusUnavailable: JetStream does not answer or has no leader now.
        ConfigError: JetStream refuses the configuration.
    """
    name = config["name"]
    try:
        found = await _find(bus, f"STREAM.INFO.{name}", STREAM_NOT_FOUND)
        if found is None:
            return await _create_stream(bus, config, flexible=flexible)
        if flexible:
            config = config | {"num_replicas": max(config["num_replicas"], _replicas(found))}
        if all(found.get(key) == value for key, value in config.items()):
            return _replicas(found)
        return await _update_stream(bus, found, config, flexible=flexible)
    except ApiError as error:
        raise error.translate(f"stream {name}") from error


async def restore_stream(bus: Requester, config: Config, *, flexible: bool = False) -> int | None:
    """Create a stream that is missing, or add replicas; leave all else of it as it is.

    Daemons of two versions run side by side during an upgrade: each would change the other's
    settings back.

    Returns:
        The number of its replicas if that has changed, else None.

    Raises:
        BusUnavailable: JetStream does not answer, or the stream has no leader.
        ConfigError: JetStream refuses the configuration.
    """
    name = config["name"]
    try:
        found = await _find(bus, f"STREAM.INFO.{name}", STREAM_NOT_FOUND)
        if found is None:
            log.warning("bus.stream_missing", stream=name)
            return await _create_stream(bus, config, flexible=flexible)
        before = _replicas(found)
        if not flexible or before >= config["num_replicas"]:
            return None
        wanted = {"num_replicas": config["num_replicas"]}
        after = await _update_stream(bus, found, wanted, flexible=True)
    except ApiError as error:
        raise error.translate(f"stream {name}") from error
    return None if after == before else after


async def _create_stream(bus: Requester, config: Config, *, flexible: bool) -> int:
    name = config["name"]
    try:
        await _call(bus, f"STREAM.CREATE.{name}", config)
    except ApiError as error:
        if error.err_code in _TOO_FEW_SERVERS and flexible and _replicas(config) > 1:
            return await _create_stream(bus, config | {"num_replicas": 1}, flexible=False)
        if error.err_code != _STREAM_EXISTS:
            raise
        await _call(bus, f"STREAM.UPDATE.{name}", config)  # another daemon was faster
    log.info("bus.stream_created", stream=name, replicas=_replicas(config))
    return _replicas(config)


async def _update_stream(bus: Requester, found: Config, config: Config, *, flexible: bool) -> int:
    name, updated = found["name"], found | config
    try:
        await _call(bus, f"STREAM.UPDATE.{name}", updated)
    except ApiError as error:
        before = {"num_replicas": _replicas(found)}
        if error.err_code not in _TOO_FEW_SERVERS or not flexible or updated == found | before:
            raise
        updated |= before
        if updated != found:
            await _call(bus, f"STREAM.UPDATE.{name}", updated)
    if updated != found:
        log.info("bus.stream_updated", stream=name, replicas=_replicas(updated))
    return _replicas(updated)


def _replicas(config: Config) -> int:
    return int(config.get("num_replicas", 1))


async def ensure_consumer(bus: Requester, stream: str, config: Config) -> bool:
    """Create or update a durable consumer.

    A server before 2.12 knows no priorities: there all requests are equal.

    Returns:
        False if the stream itself is missing.

    Raises:
        BusUnavailable: JetStream does not answer or has no leader now.
        ConfigError: JetStream refuses the configuration.
    """
    durable = config["durable_name"]
    body = {"stream_name": stream, "config": config}
    try:
        await _call(bus, f"CONSUMER.CREATE.{stream}.{durable}.{config['filter_subject']}", body)
    except ApiError as error:
        if error.err_code == STREAM_NOT_FOUND:
            return False
        if error.err_code == _INVALID_JSON and "priority_policy" in config:
            plain = {key: each for key, each in config.items() if not key.startswith("priority_")}
            return await ensure_consumer(bus, stream, plain)
        raise error.translate(f"consumer {durable} of {stream}") from error
    return True


async def delete_consumer(bus: Requester, stream: str, durable: str) -> Config | None:
    """Delete a consumer and return its configuration; None if it did not exist.

    Raises:
        BusUnavailable: JetStream does not answer or has no leader now.
        ConfigError: JetStream refuses.
    """
    place = f"{stream}.{durable}"
    try:
        config = await _find(bus, f"CONSUMER.INFO.{place}", CONSUMER_NOT_FOUND)
        if config is not None:
            await _find(bus, f"CONSUMER.DELETE.{place}", CONSUMER_NOT_FOUND)
    except ApiError as error:
        raise error.translate(f"consumer {durable} of {stream}") from error
    return config


class StoredMessage(msgspec.Struct):
    """A message that a stream holds, and its number there."""

    seq: int = 0
    data: bytes = b""


class _MessageResponse(ApiResponse):
    message: StoredMessage = msgspec.field(default_factory=StoredMessage)


async def read_last(bus: Requester, stream: str, subject: str) -> bytes | None:
    """Return the last message that a stream holds of a subject; None if there is none.

    Raises:
        BusUnavailable: JetStream does not answer or has no leader now.
        ConfigError: JetStream refuses.
    """
    found = await find_last(bus, stream, subject)
    return None if found is None else found.data


async def find_last(bus: Requester, stream: str, subject: str) -> StoredMessage | None:
    """Return the last message of a subject, which may have wildcards; None if there is none.

    Raises:
        BusUnavailable: JetStream does not answer or has no leader now.
        ConfigError: JetStream refuses.
    """
    return await _read_message(bus, stream, {"last_by_subj": subject})


async def find_next(bus: Requester, stream: str, subject: str, number: int) -> StoredMessage | None:
    """Return the first message of a subject from a number on; None if there is none.

    Args:
        bus: The connection.
        stream: The stream.
        subject: May have wildcards.
        number: That of the stream, from 1.

    Raises:
        BusUnavailable: JetStream does not answer or has no leader now.
        ConfigError: JetStream refuses.
    """
    return await _read_message(bus, stream, {"seq": number, "next_by_subj": subject})


async def _read_message(bus: Requester, stream: str, body: Config) -> StoredMessage | None:
    try:
        found = await call_api(bus, f"STREAM.MSG.GET.{stream}", body, _MessageResponse)
    except ApiError as error:
        if error.err_code in (STREAM_NOT_FOUND, _NO_MESSAGE):
            return None
        raise error.translate(f"stream {stream}") from error
    return found.message


async def purge_stream(bus: Requester, stream: str) -> None:
    """Remove all messages of a stream.

    Raises:
        BusUnavailable: JetStream does not answer or has no leader now.
        ConfigError: JetStream refuses.
    """
    try:
        await call_api(bus, f"STREAM.PURGE.{stream}", {}, ApiResponse)
    except ApiError as error:
        if error.err_code != STREAM_NOT_FOUND:
            raise error.translate(f"stream {stream}") from error


async def _find(bus: Requester, call: str, missing: int) -> Config | None:
    try:
        return (await _call(bus, call, None)).config
    except ApiError as error:
        if error.err_code == missing:
            return None
        raise


async def _call(bus: Requester, call: str, body: Config | None) -> _ConfigResponse:
    return await call_api(bus, call, body, _ConfigResponse)


async def call_api(
    bus: Requester, call: str, body: Config | None, kind: type[A], seconds: float = _API_SECONDS
) -> A:
    """Call JetStream's API and return its response, typed.

    Raises:
        ApiError: The API returned an error.
        BusUnavailable: JetStream does not answer.
    """
    payload = b"" if body is None else msgspec.json.encode(body)
    try:
        data = await bus.request(f"$JS.API.{call}", payload, seconds)
    except BusUnavailable as away:
        advice = ": start nats-server with -js" if "no responder" in str(away) else ""
        raise BusUnavailable(f"JetStream does not answer ({away}){advice}") from away
    response = msgspec.json.decode(data, type=kind)
    if response.error is not None:
        error = response.error
        raise ApiError(error.code, error.err_code, error.description)
    return response
