"""Results in the result store: references, and values in their place."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pubsubflow.errors import Unavailable
from pubsubflow.model.wire.messages import NOT_MAPPED, encode
from pubsubflow.model.wire.outputs import decode_outputs, detach_pushed, encode_outputs
from pubsubflow.model.wire.stored_results import (
    StoredInput,
    StoredResult,
    decode_stored,
    encode_stored,
    is_stored,
    may_hold_stored,
    stored_part,
)
from pubsubflow.model.wire.worker_requests import Chunk, ResultRequest
from pubsubflow.runner.exchanges.requests import fetch_result, run_exchange

decode = msgspec.msgpack.decode
INTS = st.integers(0, 2**31 - 1)
STORED = st.builds(StoredResult, st.integers(0, 2**62), INTS, st.integers(-1, 9), INTS, INTS, INTS)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def exchange(request, *, managers=b"", files=None):
    """Fetch a result from scripted managers, and from files of the result store."""

    def send(asked):
        if isinstance(asked, StoredResult):
            data = (files or {}).get(asked)
            return Chunk(b"", 0, "it is away") if data is None else Chunk(data, len(data))
        return Chunk(managers[asked.offset : asked.offset + 100], len(managers))

    return run_exchange(fetch_result(request), send)


@given(STORED)
def test_a_reference_comes_back(stored):
    data = encode_stored(stored)
    assert is_stored(data)
    assert decode_stored(data) == stored
    assert stored.name.startswith(f"{stored.run >> 32}/{stored.run}/")
    assert may_hold_stored(encode([1, msgspec.Raw(data)]))


@given(
    st.dictionaries(st.text(min_size=1), st.binary(max_size=2000), max_size=6), st.integers(0, 4000)
)
def test_pushed_values_that_are_large_are_referred_to_and_come_back(values, inline):
    fence = (1 << 40, 3, -1, 1, 10_000_000_001)

    def refer(part, size):
        return encode_stored(stored_part(fence, part, size))

    outputs = encode_outputs({key: encode(value) for key, value in values.items()}, {"a": "b"})
    left, parts = detach_pushed(outputs, inline, refer)
    files = {stored_part(fence, part, len(data)): data for part, data in parts}
    assert len({each.name for each in files}) == len(parts)
    assert StoredResult(*fence, 1).name not in {each.name for each in files}
    found = decode_outputs(left)
    assert found.rendered == {"a": "b"}
    assert {
        key: decode(exchange(StoredInput(bytes(value)), files=files))
        for key, value in found.pushed.items()
    } == values
    assert list(found.pushed) == list(values)
    inlined = [value for value in found.pushed.values() if not is_stored(bytes(value))]
    assert len(left) <= max(inline, 200 * (len(values) + 1)) or not inlined
    assert parts == [] or len(outputs) > inline


@given(JSON)
@settings(max_examples=40)
def test_no_result_of_a_task_is_taken_for_a_reference(value):
    data = encode(value)
    assert not is_stored(data)
    assert exchange(StoredInput(data)) == data
    assert exchange(ResultRequest(1, 2), managers=data) == data


@given(st.binary(max_size=5))
def test_bytes_that_look_like_a_reference_are_not_one(more):
    forged = encode(encode_stored(StoredResult(1, 2, -1, 1, 1, 10)) + more)
    assert not is_stored(forged)
    assert exchange(StoredInput(encode([1, msgspec.Raw(forged)]))) == encode(
        [1, msgspec.Raw(forged)]
    )


@given(st.lists(st.tuples(JSON, st.booleans()), max_size=4))
@settings(max_examples=30)
def test_references_among_the_results_of_a_mapped_task_are_replaced(parts):
    files, items = {}, []
    for index, (value, stored) in enumerate(parts):
        key = StoredResult(7, 0, index, 1, 1, 1)
        if stored:
            files[key] = encode(value)
        items.append(msgspec.Raw(encode_stored(key) if stored else encode(value)))
    whole = encode([value for value, _ in parts])
    assert exchange(StoredInput(encode(items)), files=files) == whole
    request = ResultRequest(7, 0, None)
    assert exchange(request, managers=encode(items), files=files) == whole


def test_an_element_is_taken_out_of_a_stored_list_alone():
    key = StoredResult(7, 0, NOT_MAPPED, 1, 1, 1)
    files = {key: encode(["a", ["b"]])}
    plain = ResultRequest(7, 0, NOT_MAPPED, 1)
    assert exchange(plain, managers=encode_stored(key), files=files) == encode(["b"])
    # What an instance of a mapped task returned is an element by itself.
    mapped = ResultRequest(7, 0, None, 1)
    assert exchange(mapped, managers=encode_stored(key), files=files) == files[key]


def test_a_store_that_is_away_can_be_tried_again():
    key = StoredResult(7, 0, NOT_MAPPED, 1, 1, 1)
    with pytest.raises(Unavailable, match="it is away"):
        exchange(StoredInput(encode_stored(key)))
