"""What stands under the names of a bundle, and what may have changed between two."""

from hypothesis import given
from hypothesis import strategies as st

from pubsubflow.model.source.bundles import (
    BundleFile,
    Manifest,
    contents,
    names_of_changes,
)

_PARTS = st.sampled_from(["a", "b", "a.py"])
_PATHS = st.lists(_PARTS, min_size=1, max_size=3).map("/".join)
_FILES = st.builds(BundleFile, st.sampled_from("xy"), st.just(1), st.booleans())
_MANIFESTS = st.dictionaries(_PATHS, _FILES, max_size=6).map(
    lambda files: Manifest("/dags", "", files)
)
_NAMES = st.one_of(_PATHS, _PATHS.map(lambda path: f"{path}/"), st.just("/"))


@given(_MANIFESTS, _MANIFESTS, st.lists(_NAMES, max_size=4))
def test_only_names_of_changes_hold_something_else(before, after, names):
    if names_of_changes(before, after).isdisjoint(names):
        assert contents(before, names) == contents(after, names)


@given(_MANIFESTS)
def test_a_bundle_does_not_differ_from_itself(manifest):
    assert names_of_changes(manifest, manifest) == set()
