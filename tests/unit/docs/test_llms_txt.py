"""The texts for language models that the docs build writes."""

from pathlib import Path
from types import SimpleNamespace

import llms_txt


def test_both_files_hold_the_pages_of_the_site(tmp_path):
    llms_txt.on_pre_build()
    guide = SimpleNamespace(title="Write DAGs")
    for name, title, parent in [("index", "pubsubflow", None), ("testing", "Testing", guide)]:
        page = SimpleNamespace(
            url=f"{name}.html",
            title=title,
            parent=parent,
            file=SimpleNamespace(src_uri=f"{name}.md"),
        )
        llms_txt.on_page_markdown(Path("docs", f"{name}.md").read_text(), page=page)
    site = {"site_dir": tmp_path, "site_name": "pubsubflow", "site_description": "Events."}
    llms_txt.on_post_build(config=site)
    lines = (tmp_path / "llms.txt").read_text().splitlines()
    assert lines[:3] == ["# pubsubflow", "", "> Events."]
    assert "## Write DAGs" in lines
    (line,) = [each for each in lines if each.startswith("- [Testing](testing.html): ")]
    assert line.endswith("`dag.test()` runs a DAG inside your test")
    whole = (tmp_path / "llms-full.txt").read_text()
    assert "<!-- testing.html -->" in whole
    assert "```python" in whole


def test_the_docs_build_calls_it():
    assert "hooks: [tools/llms_txt.py]" in Path("mkdocs.yml").read_text()


def test_a_sentence_is_plain_text():
    assert llms_txt.first_sentence("# A\n\n| t |\n\nSee [it](x.md). More.") == "See it."
    assert llms_txt.first_sentence("# A\n\n- list") == ""
