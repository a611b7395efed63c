"""The help texts of commands: their docstrings, without the ends of lines of the source."""

import inspect
import re
from importlib import import_module

from pubsubflow.cli.run_choice import RunChoice
from pubsubflow.cli.target import Target

# The end of a line within a paragraph, or within the sentence of a parameter.
_WRAPPED = re.compile(r"(?<=\S)\n(?: {8,})?(?=\S)")


def unwrap_help(place: str) -> None:
    """Join the lines of paragraphs and of parameters' sentences, which a terminal breaks anew.

    Args:
        place: The command, as the table of commands names it.
    """
    module, _, function = place.partition(":")
    command = getattr(import_module(f"pubsubflow.cli.commands.{module}"), function)
    for each in (inspect.unwrap(command), command, Target, RunChoice):
        each.__doc__ = _WRAPPED.sub(" ", inspect.getdoc(each) or "")
