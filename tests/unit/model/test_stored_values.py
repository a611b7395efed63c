"""Stored values: what only a newer version knows of them survives a change by an older one."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct, field

from pubsubflow.errors import NewerFormat
from pubsubflow.model.runs.progress import STORED_PROGRESS, NodeProgress, Progress
from pubsubflow.model.schedule.condition_state import (
    ConditionState,
    InputState,
    decode_condition_state,
    encode_condition_state,
)
from pubsubflow.model.source.stored_specs import FORMAT, STORED_SPEC
from pubsubflow.model.spec import DagSpec
from pubsubflow.model.stored.values import StoredCodec, StoredValue, keep_unknown
from pubsubflow.model.wire.waits import Wait, WaitCompletion, WaitSet, encode_wait_set
from support.specs import dag, task

encode = msgspec.msgpack.encode
decode = msgspec.msgpack.decode


class Part(Struct, array_like=True, forbid_unknown_fields=True):
    count: int = 0
    names: list[str] = field(default_factory=list)


class Whole(StoredValue):
    parts: list[Part]
    total: int = 0


class NewerPart(Struct, array_like=True):
    count: int = 0
    names: list[str] = field(default_factory=list)
    more: object = None


class NewerWhole(Struct, array_like=True):
    parts: list[NewerPart]
    total: int = 0
    more: object = None
    most: object = None


CODEC = StoredCodec(Whole, "a whole")
_values = st.none() | st.integers(-9, 9) | st.lists(st.integers(0, 9), max_size=3)
_parts = st.builds(NewerPart, st.integers(0, 9), st.lists(st.text(max_size=2)), _values)
newer_wholes = st.builds(
    NewerWhole, st.lists(_parts, max_size=4), st.integers(0, 9), _values, _values
)


@given(newer_wholes, st.integers(0, 9))
def test_a_change_by_an_older_version_changes_only_what_it_knows(newer, added):
    read = CODEC.decode(encode(newer))
    assert [each.count for each in read.parts] == [each.count for each in newer.parts]
    read.total += added
    for part in read.parts:
        part.count += added
        part.names.append("x")
    written = msgspec.msgpack.decode(CODEC.encode(read), type=NewerWhole)
    newer.total += added
    for part in newer.parts:
        part.count += added
        part.names.append("x")
    assert written == newer


@given(st.lists(st.integers(0, 9), max_size=4))
def test_what_is_known_whole_is_encoded_as_ever(counts):
    value = Whole([Part(count) for count in counts], 3)
    data = CODEC.encode(value)
    assert data == encode(value)
    read = CODEC.decode(data)
    assert read == value
    assert read.newer is None
    assert CODEC.decode(encode([[], 1])) == Whole([], 1)


def test_an_older_value_gets_the_defaults():
    assert CODEC.decode(encode([[[5]]])) == Whole([Part(5)])


def test_what_cannot_be_read_at_all_is_of_a_newer_version():
    with pytest.raises(NewerFormat, match=r"a whole .*upgrade this one"):
        CODEC.decode(encode([{"parts": []}, 1, 2]))


def test_damage_is_not_taken_for_a_newer_version():
    with pytest.raises(msgspec.DecodeError, match="truncated"):
        CODEC.decode(encode(Whole([], 1))[:1])


def test_the_progress_of_a_run_and_the_state_of_a_condition_keep_what_is_unknown():
    plain = decode(encode(Progress([NodeProgress(2, 1)], 1)))
    plain[0][0].append("node")
    plain += ["run"]
    progress = STORED_PROGRESS.decode(encode(plain))
    progress.nodes[0].success += 1
    plain[0][0][1] = 2
    assert decode(STORED_PROGRESS.encode(progress)) == plain

    plain = decode(encode(ConditionState([InputState(3)])))
    plain[0][0].append({"input": 1})
    plain += ["state"]
    state = decode_condition_state(encode(plain))
    state.firings = 7
    plain[ConditionState.__struct_fields__.index("firings")] = 7
    assert decode(encode_condition_state(state)) == plain


def test_waits_keep_what_is_unknown():
    before = decode(encode_wait_set(WaitSet("0", "a", (Wait("time", "a"),))))
    before[2][0].append("wait")
    before += ["set"]
    now = WaitSet("0", "a", (Wait("time", "a"),), completions=(WaitCompletion(0),))
    kept = decode(keep_unknown(encode_wait_set(now), encode(before), WaitSet))
    assert kept[2][0][-1] == "wait"
    assert kept[-1] == "set"
    assert len(kept[6]) == 1
    same = encode_wait_set(now)
    assert keep_unknown(same, same, WaitSet) is same


def test_a_definition_with_unknown_keys_is_read_and_one_of_an_unknown_kind_is_of_a_newer_version():
    spec = dag("d", task("a"), on="x")
    plain = decode(encode(spec))
    plain["colour"] = "red"
    plain["tasks"][0]["shape"] = [1]
    assert STORED_SPEC.decode(encode(plain)) == spec
    plain["schedule"]["condition"]["type"] = "oracle"
    with pytest.raises(NewerFormat, match="the definition of a DAG"):
        STORED_SPEC.decode(encode(plain))


def test_a_definition_that_daemons_of_before_would_misread_has_a_format_that_they_refuse():
    plain = dag("d", task("a"), on="x")
    # As they read: what does not need the format is a map to them.
    before = msgspec.msgpack.Decoder(DagSpec).decode
    assert before(STORED_SPEC.encode(plain)) == STORED_SPEC.decode(STORED_SPEC.encode(plain))
    grouped = dag("d", task("a", over=[2], map_group="g"), on="x")
    stored = STORED_SPEC.encode(grouped)
    assert STORED_SPEC.decode(stored) == grouped
    with pytest.raises(msgspec.ValidationError):
        before(stored)
    with pytest.raises(NewerFormat, match=f"format {FORMAT + 1}"):
        STORED_SPEC.decode(encode([FORMAT + 1, decode(stored)[1]]))
