"""Texts for language models, written while the docs site is built: llms.txt and llms-full.txt.

`llms.txt` lists all pages with a sentence each, `llms-full.txt` holds them as Markdown, both in the
order of the navigation. The format is that of llmstxt.org; mkdocs calls the functions named `on_`.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

_HEADING = re.compile(r"^#{1,6} .*$", re.MULTILINE)
_LINK = re.compile(r"\[([^\]]+)\]\([^)]*\)")
_SENTENCE = re.compile(r".+?(?:[.:](?=\s|$)|$)")
_NO_TEXT = ("|", "```", "- ", "!", "<", ":::", "::")


class Page(NamedTuple):
    """A page: its address in the site, its title and its Markdown."""

    url: str
    title: str
    section: str
    text: str


_pages: dict[str, Page] = {}


def on_pre_build(**_: Any) -> None:
    """Forget the pages of a build before."""
    _pages.clear()


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> None:
    """Keep a page of the navigation."""
    section = page.parent.title if page.parent is not None else ""
    _pages[page.file.src_uri] = Page(page.url or "index.html", page.title, section, markdown)


def on_post_build(*, config: Mapping[str, Any], **_: Any) -> None:
    """Write both files into the site."""
    site = Path(config["site_dir"])
    name, about = config["site_name"], config["site_description"]
    pages = list(_pages.values())
    (site / "llms.txt").write_text(index(name, about, pages), encoding="utf-8")
    (site / "llms-full.txt").write_text(whole(name, about, pages), encoding="utf-8")


def index(name: str, about: str, pages: list[Page]) -> str:
    """Return llms.txt: a heading a section, a line a page."""
    lines = [f"# {name}", "", f"> {about}"]
    section = None
    for page in pages:
        if page.section != section:
            section = page.section
            lines += ["", f"## {section or 'Start'}", ""]
        sentence = first_sentence(page.text)
        lines.append(f"- [{page.title}]({page.url})" + (f": {sentence}" if sentence else ""))
    return "\n".join(lines) + "\n"


def whole(name: str, about: str, pages: list[Page]) -> str:
    """Return llms-full.txt: all pages, each below a line with its address."""
    parts = [f"# {name}\n\n> {about}\n"]
    parts += [f"\n<!-- {page.url} -->\n\n{page.text.strip()}\n" for page in pages]
    return "".join(parts)


def first_sentence(text: str) -> str:
    """Return the first sentence of a page in plain text; empty if it has none."""
    for part in re.split(r"\n\s*\n", _HEADING.sub("", text)):
        plain = " ".join(part.split())
        if plain and not plain.startswith(_NO_TEXT):
            found = _SENTENCE.match(_LINK.sub(r"\1", plain))
            return found[0].removesuffix(":") if found else ""
    return ""
