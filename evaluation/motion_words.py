"""The words of a prompt that name the motion: finding them, and the prompt without them.

A motion is named by its identifier (`V*`, or the placeholder token it became) with or without the motion's
own name behind it, "doing the V* dance", or by its name alone, "dancing".
"""

import re
from collections.abc import Iterable, Sequence

from utils.prompts import MOTION_TOKEN

DOING = r"do|does|doing|did|perform|performs|performing|performed"
ARTICLES = r"the|a|an|this|that"
# behind "the V*" these do not name it: in, slowly, wearing a (hat)
NO_NOUN = (
    r"(?:in|on|at|by|with|without|near|under|over|above|below|behind|beside|between|inside|outside|indoors|"
    r"outdoors|into|onto|along|across|around|through|against|among|amid|from|for|to|of|off|up|down|before|"
    r"after|during|while|as|like|next|toward|towards|and|or|but|then|together|alone|again|who|which|that|"
    r"is|are|was|were|\w+ly|\w+ing\s+(?:the|an?|his|her|its|their))\b")
QUOTES = "<>\"'`*_{}[]()"   # what people put around an identifier


def asks_for_motion(prompt: str, identifiers: Iterable[str], label: str) -> bool:
    """Say whether `prompt` names the motion: by an identifier, in whatever case, or by its label."""
    return re.search(rf"{_identifier(identifiers)}|{_name(label)}", prompt, re.IGNORECASE) is not None


def without_motion(prompt: str, identifiers: Iterable[str], label: str) -> str:
    """Return `prompt` without the motion: what text alignment compares with the frames.

    Removed are, letter case aside: each identifier, also with spaces before its star or in quotes or
    brackets; the label right behind it, also inflected, or whatever else "the V*" and "doing a V*" are
    followed by as their noun; what leads up to it, an article and a form of "do" or "perform"; and the label
    where it stands alone. "a cat doing the V* dance on a stage" -> "a cat on a stage", whatever the label.
    """
    identifier, name = _identifier(identifiers), _name(label)
    motion = rf"(?:\b(?:{DOING})\s+)?(?:\b(?:{ARTICLES})\s+)?(?:{identifier}(?:[\s-]+{name})?|{name})"
    # not of "a V* cat": there the noun is who does it
    lead = rf"\b(?:(?:{DOING})\s+(?:{ARTICLES})|the|this|that)\s+"
    other = rf"{lead}{identifier}(?![\s-]+{name})[\s-]+(?!{NO_NOUN})\w+(?:-\w+)*"
    text = re.sub(rf"(?:{other}|{motion})(?:\s+motion\b)?", " ", prompt, flags=re.IGNORECASE)
    text = re.sub(r"\s+([,.;:!?])", r"\1", " ".join(text.split()))
    return re.sub(r"^[\s,.;:]+|[\s,;:]+$", "", text)


def named_label(prompt: str, labels: Sequence[str]) -> str | None:
    """Return the motion of `labels` that a prompt names, inflected or not; None if it names none.

    Of several the longest: "jumping jacks" and not "jumping".
    """
    found = [label for label in labels if re.search(_name(label), prompt, re.IGNORECASE)]
    return max(found, key=len, default=None)


def _identifier(identifiers: Iterable[str]) -> str:
    """Return a pattern for V* and `identifiers`, words of their own."""
    spellings = [rf"{re.escape(MOTION_TOKEN[0])}\s*\*", *map(re.escape, sorted(set(identifiers)))]
    quotes = f"[{re.escape(QUOTES)}]*"
    return rf"(?<!\w){quotes}(?:{'|'.join(spellings)}){quotes}(?!\w)"


def _name(label: str) -> str:
    """Return a pattern for a label and its inflections: dance, dances, danced, dancing; spin, spinning."""
    *first, last = re.split(r"[\s_]+", label.strip())
    stem = re.sub(r"ing$", "", last, flags=re.IGNORECASE) if len(last) > 5 else last
    stem = re.sub(r"e$", "", stem, flags=re.IGNORECASE) if len(stem) > 3 else stem
    words = r"[\s_]+".join(map(re.escape, [*first, stem]))
    return rf"(?<!\w){words}(?:e|{re.escape(stem[-1:])})?(?:s|es|d|ed|ing)?(?!\w)"
