"""Jinja templates in the fields of operators.

The import of jinja2 takes 40 ms, so only `bind` imports this module, at a runner's first template.
"""

import shlex
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

# A template stands in a DAG file, but a class may build one from an event: the sandbox keeps such
# a text from calling what it finds.
_ENVIRONMENT = ImmutableSandboxedEnvironment(
    undefined=StrictUndefined,
    keep_trailing_newline=True,
    autoescape=False,
)


def quote_for_shell(value: object) -> str:
    """Return a value as one word of a shell command: the filter `sh`."""
    return shlex.quote(str(value))


_ENVIRONMENT.filters["sh"] = quote_for_shell


@lru_cache(maxsize=1024)
def _compiled(text: str) -> Template:
    return _ENVIRONMENT.from_string(text)


def render(text: str, names: Mapping[str, Any]) -> str:
    """Return the text with its `{{ … }}` replaced.

    Raises:
        jinja2.TemplateError: The template is invalid, or uses an unknown name.
    """
    return _compiled(text).render(names)
