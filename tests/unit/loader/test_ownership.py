"""What is decided file by file is what is decided over all files at once."""

from hypothesis import given
from hypothesis import strategies as st

from pubsubflow.loader.messages import ImportResult
from pubsubflow.loader.ownership import Ownership, resolve_owners
from pubsubflow.model.alerts import FreshSpec
from pubsubflow.model.spec import DatasetSpec, LoadedFile
from pubsubflow.model.webhooks import WebhookSpec
from pubsubflow.webhooks import Unverified

FILES = ("a.py", "b.py", "c.py")
names = st.frozensets(st.sampled_from(("x", "y", "z")), max_size=2)
imports = st.builds(
    lambda defined, fresh, foreign: (defined, fresh, foreign),
    names,
    st.dictionaries(st.sampled_from(("d", "e")), st.sampled_from((1.0, 2.0)), max_size=1),
    st.dictionaries(st.sampled_from(("x", "y")), st.sampled_from(FILES), max_size=1),
)
steps = st.lists(st.tuples(st.sampled_from(FILES), st.none() | imports), min_size=1, max_size=12)


def result(file, defined, fresh, foreign):
    hooks = tuple(WebhookSpec(name, "s3://lake/d", Unverified()) for name in sorted(defined))
    datasets = tuple(
        DatasetSpec(f"s3://{name}", None, None, None, None, None, FreshSpec(seconds))
        for name, seconds in fresh.items()
    )
    return ImportResult(LoadedFile(file, hooks=hooks, datasets=datasets), foreign_hooks=foreign)


@given(steps, st.data())
def test_it_is_the_same_whatever_the_order_of_changes(steps, data):
    ownership, imported = Ownership(), {}
    known = {}
    for file, change in steps:
        if change is None:
            imported.pop(file, None)
            ownership.discard(file)
        else:
            imported[file] = result(file, *change)
            ownership.put(file, imported[file])
        if data.draw(st.booleans(), label="settle"):
            before = known
            changed = ownership.settle()
            known = dict(ownership.resolved)
            assert known == resolve_owners(imported)
            differing = {
                each for each in before.keys() | known.keys() if before.get(each) != known.get(each)
            }
            assert differing <= changed
