"""Jinja templates in the fields of operators.

The import of jinja2 takes 40 ms, so only `bind` imports this module, at a runner's first template.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from jinja2 import Environment, StrictUndefined, Template

_ENVIRONMENT = Environment(
    undefined=StrictUndefined,
    keep_trailing_newline=True,
    autoescape=False,  # noqa: S701 - commands and queries, not pages
)


@lru_cache(maxsize=1024)
def _compiled(text: str) -> Template:
    return _ENVIRONMENT.from_string(text)


def render(text: str, names: Mapping[str, Any]) -> str:
    """Return the text with its `{{ … }}` replaced.

    Raises:
        jinja2.TemplateError: The template is invalid, or uses an unknown name.
    """
    return _compiled(text).render(names)
