"""News: places in their log, and who wants them."""

from datetime import UTC, datetime

import msgspec
import pytest

from pubsubflow.errors import DefinitionError
from pubsubflow.model.changes import (
    ChangeFilter,
    ChangeKind,
    LogPosition,
    RunChanged,
    change_filter,
    decode_records,
    encode_records,
)
from pubsubflow.model.runs.states import RunState

RUN = RunChanged(run_id="r", dag_id="d", state=RunState.SUCCESS, time=datetime.now(UTC))


def test_a_place_is_read_as_it_was_written():
    place = LogPosition("0badcafe", 17, 3)
    assert LogPosition.parse(str(place)) == place


@pytest.mark.parametrize("text", ["", "1", "a-1", "a-1-2-3", "g-1-2", "a-1--2", "a-١-2", "a-1-2\n"])  # noqa: RUF001
def test_what_is_no_place_is_none(text):
    assert LogPosition.parse(text) is None


def test_items_are_kept_whole():
    item, other = decode_records(encode_records([RUN, RUN]))
    assert item == other
    assert (item.kind, item.dag_id, item.run_id, item.dataset) == (ChangeKind.RUN, "d", "r", None)


def test_what_has_no_dataset_is_not_wanted_by_dataset():
    chosen = change_filter(dags=["d"], runs=[], datasets=["s3://lake/**"], kinds=[])
    (record,) = decode_records(encode_records([RUN]))
    assert not chosen.matches(record)
    with pytest.raises(DefinitionError):
        change_filter(dags=[], runs=[], datasets=["no uri"], kinds=[])


def test_a_kind_of_a_newer_version_is_passed_on():
    body = msgspec.msgpack.encode([["oracle", "d", None, None, b"{}", "more"]])
    (record,) = decode_records(body)
    assert (record.kind, record.data) == ("oracle", b"{}")
    assert ChangeFilter().matches(record)
    assert not ChangeFilter(kinds=frozenset({ChangeKind.RUN})).matches(record)
