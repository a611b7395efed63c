"""Roles on some DAGs and datasets, decided without any I/O."""

from itertools import pairwise, product
from typing import get_args, get_origin
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubsubflow.api.auth.scopes import SCOPES, Scope
from pubsubflow.api.http.shown import RULES
from pubsubflow.errors import InvalidInput
from pubsubflow.model.auth import (
    Grant,
    Principal,
    Rights,
    Role,
    Token,
    check_limits,
    covers,
    known_grants,
)
from support.api import described_routes

TAGS = {
    "sales_load": ("team:sales",),
    "sales/eu": (),
    "hr": ("team:hr",),
    "shared": ("team:sales",),
}
NAMES = st.text("ab:/_*", min_size=1, max_size=6)
GRANTS = st.builds(
    Grant,
    st.sampled_from([Role.VIEWER, Role.OPERATOR, Role.ADMIN]),
    st.sampled_from(["dag", "tag"]),
    NAMES,
)


def rights(*texts, base=Role.EMITTER):
    found = tuple(map(Grant.parse, texts))
    return Rights(base, found, lambda dag_id: TAGS.get(dag_id, ()), lambda: TAGS)


def test_the_greatest_role_that_fits_counts():
    mine = rights("viewer:dag=sales*", "operator:tag=team:sales", "admin:dag=hr")
    assert {each: mine.role_on_dag(each) for each in (*TAGS, "other")} == {
        "sales_load": Role.OPERATOR,
        "sales/eu": Role.VIEWER,
        "hr": Role.ADMIN,
        "shared": Role.OPERATOR,
        "other": Role.EMITTER,  # the least: nothing by itself
    }
    assert mine.dags_with(Role.OPERATOR) == ["sales_load", "hr", "shared"]
    assert not mine.sees_dag("other")
    assert rights("operator:dag=hr", base=Role.VIEWER).dags_with(Role.VIEWER) is None
    assert rights("operator:dag=hr", base=Role.VIEWER).role_on_dag("other") is Role.VIEWER


def test_datasets_are_seen_and_posted_to_by_their_own_grants():
    texts = ("viewer:dataset=s3://lake/sales/**", "operator:dataset=S3://Lake/sales/in/*")
    mine = rights(*texts, "admin:dag=*")
    assert mine.sees_dataset("s3://lake/sales/in/a/b")
    assert not mine.sees_dataset("s3://lake/hr")
    token = Token(
        id=UUID(int=1), name="t", role=Role.EMITTER, digest=b"", grants=known_grants(texts)
    )
    who = Principal.of(token)
    posts = ("s3://lake/sales/in/a", "s3://lake/sales/in/a/b", "s3://lake/hr")
    assert [who.may_post(each) for each in posts] == [True, False, False]
    viewer = Principal.of(msgspec.structs.replace(token, role=Role.VIEWER))
    assert [viewer.may_post(each) for each in posts] == [True, False, False]
    operator = Principal.of(msgspec.structs.replace(token, role=Role.OPERATOR))
    assert all(map(operator.may_post, posts))


@pytest.mark.parametrize(
    "text",
    [
        *("", "viewer", "viewer:dag", "viewer:dag=", "emitter:dag=a", "owner:dag=a"),
        *("viewer:run=a", "viewer:dataset=no uri", "viewer:dag=a\nb", f"viewer:dag={'a' * 513}"),
    ],
)
def test_what_is_no_grant_is_refused_and_grants_nothing_where_it_is_stored(text):
    with pytest.raises(InvalidInput):
        Grant.parse(text)
    assert known_grants([text, "viewer:dag=a"]) == (Grant(Role.VIEWER, "dag", "a"),)


def test_a_token_without_a_role_needs_grants():
    with pytest.raises(InvalidInput):
        check_limits(Role.EMITTER, [])
    assert check_limits(Role.EMITTER, [], [Grant.parse("viewer:dag=a")]) == ()
    with pytest.raises(InvalidInput, match="too many"):
        check_limits(Role.VIEWER, [], [Grant.parse("viewer:dag=a")] * 101)


@given(st.lists(GRANTS, max_size=4), NAMES, st.lists(NAMES, max_size=2))
def test_a_further_grant_never_takes_a_right_away(grants, dag_id, tags):
    roles = [
        Rights(Role.EMITTER, tuple(grants[:count]), lambda _: tags, list).role_on_dag(dag_id)
        for count in range(len(grants) + 1)
    ]
    assert all(covers(after, before) for before, after in pairwise(roles))
    assert [Grant.parse(str(each)) for each in grants] == grants


def answered_types(route):
    """Return the types of Structs that a route answers with, at the top."""
    for each in route.responses.values():
        for answer in each if isinstance(each, tuple) else (each,):
            for kind in (get_origin(answer) or answer, *get_args(answer)):
                if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
                    yield kind


def test_every_scope_is_of_a_route_and_it_is_said_what_remains_of_its_answer():
    routes = {(each.method, each.path): each for each in described_routes()}
    assert SCOPES.keys() - routes.keys() == set()
    named = {Scope.DAG: "{dag_id}", Scope.RUN: "{run_id}", Scope.TASK: "/tasks/{task}"}
    for key, scope in SCOPES.items():
        route = routes[key]
        assert named.get(scope, "") in route.path
        assert {kind for kind in answered_types(route) if kind not in RULES} == set(), key


def test_roles_are_in_order():
    order = [Role.EMITTER, Role.VIEWER, Role.OPERATOR, Role.ADMIN]
    for (higher, one), (lower, other) in product(enumerate(order), repeat=2):
        assert covers(one, other) == (higher >= lower)
