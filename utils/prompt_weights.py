"""Prompt weighting in the notation of the package compel: robot++, robot--, (a red robot)1.3.

What counts as a mark is what compel reads as one: `+` or `-` behind a word or a closing bracket, a number
behind a closing bracket, and .and( .blend( .swap(. So C++ and the first word of `pre- and post-war` are
weighted; t-shirt, rock-'n'-roll, 3+4 and (red) are not.
"""

import importlib.util
import re

from utils.errors import UserError, first_line

MARK = re.compile(r"""
    (?<=[^\s+-]) ( \+{2,} | -{2,} | [+-](?=[\s()",.=+-]|$) )   # robot++ robot-- robot+, but not t-shirt
  | \) ( [+-] | \.?\d )                                      # (a red robot)++ (a red robot)1.3
  | \.(and|blend|swap)\(
""", re.VERBOSE)


def has_weights(text: str) -> bool:
    return MARK.search(text) is not None


def check_weights(*texts: str) -> None:
    """Raise UserError if prompts have weights that compel cannot read, or if compel is not installed."""
    weighted = [text for text in texts if has_weights(text)]
    if weighted and importlib.util.find_spec("compel") is None:
        raise UserError(f"{weighted[0]!r}: {MARK.search(weighted[0])[0]!r} is a prompt weight, which needs "
                        f"the package compel. Install it (pip install compel), or leave the weight out.")
    if problems := [problem for text in weighted if (problem := _fault(text))]:
        raise UserError(*problems)


def _fault(text: str) -> str:
    """Return why a prompt with weights has no embedding of the usual length; empty if it has one."""
    from compel.prompt_parser import PromptParser  # imported late: it takes seconds

    try:
        conjunction = PromptParser().parse_conjunction(text)
    except Exception as error:   # of several classes
        return f"{text!r}: compel cannot read its weights ({first_line(error)})."
    if len(conjunction.prompts) > 1:
        return f"{text!r}: .and() makes several embeddings of it, and a video has one. Leave it out."
    return ""
