"""Stored definitions of DAGs: what daemons of before would misread has a form that they refuse.

Daemons of before ignore fields that they do not know. Where that would change what a run does, they
must leave the DAG to newer ones: its definition then stands behind the number of a format.
"""

import msgspec
from msgspec import ValidationError

from pubsubflow.errors import NewerFormat
from pubsubflow.model.spec import DagSpec
from pubsubflow.model.stored.values import StoredDecoder
from pubsubflow.model.wire.executor_spec import LOCAL

PLAIN = 1
MAPPED_GROUPS = 2
EXECUTORS = 3
BY_INSTANCE = 4
FAIL_FAST = 5
FORMAT = FAIL_FAST
"""The newest format that is known. It grows by one with a field of a spec that must not be ignored;
a spec has the oldest format that says what it needs."""

# Deterministic, as the hash of the bytes tells whether a spec is a new version.
_encode = msgspec.msgpack.Encoder(order="deterministic").encode
_WHAT = "the definition of a DAG"


class _Envelope(msgspec.Struct, array_like=True):
    """A definition behind the number of its format; further fields are those of newer formats."""

    format: int
    spec: msgspec.Raw = msgspec.Raw()


class DagSpecCodec:
    """Encodes and decodes the stored definitions of DAGs."""

    def __init__(self) -> None:
        self._plain = StoredDecoder(DagSpec, _WHAT)
        self._envelope = msgspec.msgpack.Decoder(_Envelope).decode

    def encode(self, spec: DagSpec) -> bytes:
        """Return the encoded definition, in the oldest format that says what it needs."""
        needed = needed_format(spec)
        return _encode(spec if needed == PLAIN else (needed, spec))

    def decode(self, data: bytes) -> DagSpec:
        """Decode a definition.

        Raises:
            NewerFormat: It has a format, or a form, of a newer version.
        """
        try:
            envelope = self._envelope(data)
        except ValidationError:  # the usual one is a map
            return self._plain.decode(data)
        if envelope.format > FORMAT:
            raise NewerFormat(f"{_WHAT} (format {envelope.format}, and {FORMAT} is the newest)")
        return self._plain.decode(envelope.spec)


STORED_SPEC = DagSpecCodec()


class _TaskOutlets(msgspec.Struct):
    outlets: tuple[str, ...] = ()


class _Outlets(msgspec.Struct):
    """What is read of a definition where only outlets are wanted; the rest is skipped."""

    tasks: tuple[_TaskOutlets, ...] = ()


_outlets = msgspec.msgpack.Decoder(_Outlets).decode
_envelope = msgspec.msgpack.Decoder(_Envelope).decode


def decode_outlets(data: bytes) -> tuple[str, ...]:
    """Return the datasets that the tasks of a stored definition declare, each once.

    It costs a tenth of the whole definition. A form that is not known yet declares none.
    """
    try:
        try:
            found = _outlets(data)
        except ValidationError:
            found = _outlets(_envelope(data).spec)
    except msgspec.DecodeError:
        return ()
    return tuple(dict.fromkeys(uri for task in found.tasks for uri in task.outlets))


def needed_format(spec: DagSpec) -> int:
    """Return the oldest format that says what a definition needs."""
    if spec.fail_fast:
        return FAIL_FAST
    if spec.by_instance:
        return BY_INSTANCE
    # Without their options these would run as another pod than the one that was asked for.
    if any(task.executor is not None and task.executor.name != LOCAL for task in spec.tasks):
        return EXECUTORS
    grouped = any(task.map_group for task in spec.tasks)
    return MAPPED_GROUPS if grouped else PLAIN
