"""The identity of datasets."""

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubsubflow.errors import DefinitionError
from pubsubflow.model.datasets import MAX_URI_CHARACTERS, matches, normalise_uri


@pytest.mark.parametrize(
    ("uri", "identity"),
    [
        ("S3://Lake/Orders/", "s3://lake/Orders"),
        ("s3://lake/orders#part", "s3://lake/orders"),
        ("s3://lake/a?Version=2", "s3://lake/a?Version=2"),
        ("postgres://Bob@Host:5432/db", "postgres://Bob@host:5432/db"),
        ("file:///data/x//", "file:///data/x"),
        ("urn:example:a", "urn:example:a"),
        ("x://a", "x://a"),
        ("x://a/?q", "x://a?q"),
        ("sqlite:///data/x.db", "sqlite:///data/x.db"),
        ("sqlite:/data/x.db", "sqlite:///data/x.db"),
        ("x:////a", "x:////a"),
        ("x://a?", "x://a"),
        ("x://a/..b/c.../.d", "x://a/..b/c.../.d"),
    ],
)
def test_a_uri_is_written_one_way(uri, identity):
    assert normalise_uri(uri) == identity


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("", "needs a URI"),
        ("  ", "needs a URI"),
        ("orders", "scheme and a name"),
        ("s3://", "scheme and a name"),
        ("s3:///", "scheme and a name"),
        ("//lake/orders", "scheme and a name"),
        ("s3://lake/or ders", "white space"),
        ("s3://lake/\x00", "white space"),
        ("s3://lake/\n", "white space"),
        ("s3://[lake", "malformed"),
        ("ftp://me:secret@host/x", "password"),
        ("s3://lake/raw/../secret", r"'\.\.' as a segment"),
        ("s3://lake/./orders", r"'\.' as a segment"),
        ("s3://lake/raw/%2E%2e", "'%2E%2e' as a segment"),
        ("s3://lake/raw/.%2e/x", "'.%2e' as a segment"),
        ("s3://lake/" + "x" * MAX_URI_CHARACTERS, "at most 1500"),
    ],
)
def test_a_bad_uri_says_why(uri, reason):
    with pytest.raises(DefinitionError, match=reason):
        normalise_uri(uri)


def test_a_refusal_does_not_repeat_the_password():
    with pytest.raises(DefinitionError) as refused:
        normalise_uri("ftp://me:secret@host/x")
    assert "secret" not in str(refused.value)


pieces = st.text("aAzZİß0.-_~%:/@?#[]&=+", max_size=12)


@given(st.sampled_from(["s3", "S3", "x", "file", "http", "a+b"]), pieces, pieces, pieces)
def test_normalising_twice_is_normalising_once(scheme, host, path, rest):
    for uri in (f"{scheme}://{host}/{path}?{rest}", f"{scheme}:{path}/{rest}", f"{scheme}:{host}"):
        try:
            once = normalise_uri(uri)
        except DefinitionError:
            continue
        assert normalise_uri(once) == once


@given(st.text(max_size=40) | st.text(string.printable, max_size=40))
def test_any_text_is_normalised_or_refused(text):
    try:
        once = normalise_uri(text)
    except DefinitionError:
        return
    assert normalise_uri(once) == once
    assert len(once) <= MAX_URI_CHARACTERS


def test_the_limit_holds_for_what_is_kept():
    with pytest.raises(DefinitionError, match="at most"):
        normalise_uri("s3://" + "İ" * 800 + "/x")


def as_regular_expression(pattern):
    wild = {"**": ".*", "*": "[^/]*"}
    return "".join(wild.get(part, re.escape(part)) for part in re.split(r"(\*\*|\*)", pattern))


parts = st.sampled_from(["a", "b", ".", "/", "*", "**"])


@given(pattern=st.lists(parts, max_size=8).map("".join), uri=st.text("ab./", max_size=9))
def test_a_pattern_matches_what_its_regular_expression_matches(pattern, uri):
    expected = re.fullmatch(as_regular_expression(pattern), uri) is not None
    assert matches(pattern, uri) == expected


def test_no_uri_makes_a_pattern_expensive():
    """A backtracking search takes more than 10^15 steps for this one."""
    uri = "s3://lake/" + "-" * (MAX_URI_CHARACTERS - 10)
    assert not matches("s3://lake/" + "*-" * 8 + "*.parquet", uri)
    assert matches("s3://lake/" + "*-" * 8 + "*-", uri)
