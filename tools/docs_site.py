"""Renderer of Mermaid drawings for the docs site: the fence in a page becomes SVG at build time.

The pages keep their drawings as text, which GitHub renders by itself. In a browser Mermaid is a
script that the theme would load from another host; with SVG in the page the site loads nothing.
"""

from itertools import count
from typing import Any

import mmdr

_numbers = count(1)


def draw(source: str, *_: Any, **__: Any) -> str:
    """Return a fence of the language `mermaid` as SVG; superfences calls it.

    Raises:
        ValueError: The drawing has a fault.
    """
    # Every SVG names its parts the same, and ids are the whole page's.
    svg = mmdr.render(source).svg().replace("merman", f"drawing{next(_numbers)}")
    return f'<div class="drawing" style="background: #fff">{svg}</div>'
