"""Tokens, roles and limits, decided without any I/O."""

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from uuid import UUID

import pytest

from pubsubflow.api.auth.middleware import ALLOWED
from pubsubflow.api.http.routing import Access
from pubsubflow.errors import InvalidInput
from pubsubflow.model.auth import (
    PREFIX,
    Principal,
    Role,
    Token,
    check_limits,
    check_name,
    digest_of,
    new_token,
)

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def token(**more):
    facts = {"id": UUID(int=1), "name": "t", "role": Role.VIEWER, "digest": b"", **more}
    return Token(**facts)


def test_a_secret_is_random_recognisable_and_only_its_digest_is_known():
    first, second = new_token(), new_token()
    assert first != second
    assert first.startswith(PREFIX)
    assert len(first) == len(PREFIX) + 43  # 256 bits
    assert digest_of(first) == sha256(first.encode()).digest()
    assert digest_of("psf_\udcff")  # what no header should hold has a digest too


def test_each_role_may_what_it_is_there_for_and_nothing_else():
    assert {
        Role.VIEWER: {Access.OPEN, Access.ANY, Access.VIEWER},
        Role.EMITTER: {Access.OPEN, Access.ANY, Access.EMITTER},
        Role.OPERATOR: {
            Access.OPEN,
            Access.ANY,
            Access.VIEWER,
            Access.EMITTER,
            Access.OPERATOR,
        },
        Role.ADMIN: set(Access),
    } == ALLOWED


def test_a_token_counts_until_it_ends():
    assert token().is_live(NOW)
    assert token(expires_at=NOW + timedelta(seconds=1)).is_live(NOW)
    assert not token(expires_at=NOW).is_live(NOW)


def test_an_emitter_posts_events_of_its_datasets_only():
    limits = check_limits(Role.EMITTER, ["S3://Lake/shop/*/", "s3://lake/rates", "x://y/**"])
    who = Principal.of(token(role=Role.EMITTER, datasets=limits))
    may = {
        "s3://lake/shop/orders": True,
        "s3://lake/shop/orders/eu": False,
        "s3://lake/rates": True,
        "s3://lake/rates2": False,
        "s3://lake": False,
        "x://y/a/b": True,
        "x://yy/a": False,
    }
    assert {uri: who.may_post(uri) for uri in may} == may
    assert Principal.of(token(role=Role.OPERATOR)).may_post("s3://anything")


@pytest.mark.parametrize(
    ("role", "datasets"),
    [(Role.EMITTER, []), (Role.ADMIN, ["s3://lake/*"]), (Role.EMITTER, ["no uri"])],
)
def test_limits_that_do_not_fit_are_refused(role, datasets):
    with pytest.raises(InvalidInput):
        check_limits(role, datasets)


@pytest.mark.parametrize("name", ["", "a b", "-a", "a\n", "é", "a" * 65, "a/b"])
def test_names_are_plain(name):
    with pytest.raises(InvalidInput, match="is not a token name"):
        check_name(name)
    assert check_name("ci@shop-1.eu") == "ci@shop-1.eu"
