"""The clean slate: namespaces are as they were, or have got more; against a plain reference."""

from hypothesis import given
from hypothesis import strategies as st

from pubsubflow.loader.clean_slate import _Watched


class _Equal:
    """Equals everything."""

    def __eq__(self, other):
        return True

    def __hash__(self):
        return 0


# Equal to each other or not, and never one for another.
_VALUES = [_Equal(), _Equal(), object(), 1, True]
_NAMES = st.sampled_from("abc")
_STEPS = st.lists(
    st.tuples(st.integers(0, 2), _NAMES, st.sampled_from([None, *range(len(_VALUES))])), max_size=4
)


def _apply(namespaces, steps):
    for number, name, value in steps:
        if value is None:
            namespaces[number].pop(name, None)
        else:
            namespaces[number][name] = _VALUES[value]


def _has_all(namespace, before):
    return all(name in namespace and namespace[name] is value for name, value in before.items())


@given(_STEPS, st.lists(_STEPS, min_size=1, max_size=4))
def test_what_was_there_is_there_still_or_the_slate_is_not_clean(before, imports):
    namespaces = [{"own": number} for number in range(3)]
    _apply(namespaces, before)
    watched = _Watched(namespaces)
    noted = [dict(each) for each in namespaces]
    for steps in imports:
        _apply(namespaces, steps)
        kept = all(map(_has_all, namespaces, noted))
        assert watched.are_kept() == kept
        if not kept:
            break
        # What has come counts from then on, too.
        noted = [dict(each) for each in namespaces]
