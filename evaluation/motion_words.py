"""The words of a prompt that name the motion: finding them, and the prompt without them.

    MotionName("dance")                            "a cat doing the V* dance on a stage" -> "a cat on a stage"
    MotionName("salsa", "doing the V* dance")      the same, where the recognizer calls the motion "salsa"
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from utils.prompts import IDENTIFIER

DOING = r"(?:\b(?:do|does|doing|perform|performs|performing)\s+)?(?:\b(?:the|an?)\s+)?"


@dataclass(frozen=True)
class MotionName:
    """What the motion is called."""

    label: str                  # by the recognizer
    phrase: str | None = None   # by prompts, as the user gave it; V*, V2*, ... in it stand for any identifier

    def patterns(self, identifiers: Iterable[str]) -> list[re.Pattern]:
        """Return the patterns of the words that name the motion, to be removed one after the other.

        The first is `phrase`. The second is "doing the", an identifier and the label; or an identifier or the
        label alone. `identifiers` are the words that V* became, such as "sks".
        """
        words = (IDENTIFIER.pattern.replace("(", "(?:"), *map(re.escape, sorted(identifiers)))
        identifier = rf"(?:{'|'.join(words)})"
        label = _words(self.label)
        texts = [rf"{DOING}(?:{identifier}(?:[\s-]+{label})?|{label})"]
        if self.phrase:
            # [::2] leaves out the motions' numbers, which split returns between the pieces
            texts.insert(0, identifier.join(map(_words, IDENTIFIER.split(self.phrase)[::2])))
        return [re.compile(rf"(?<!\w)(?:{text})(?!\w)", re.IGNORECASE) for text in texts]


def asks_for_motion(prompt: str, patterns: Sequence[re.Pattern]) -> bool:
    """Say whether `prompt` names the motion, in whatever letter case."""
    return any(pattern.search(prompt) for pattern in patterns)


def without_motion(prompt: str, patterns: Sequence[re.Pattern]) -> str:
    """Return `prompt` without the words that name the motion: text alignment compares it with the frames."""
    for pattern in patterns:
        prompt = pattern.sub(" ", prompt)
    prompt = re.sub(r"\s+([,.;:!?])", r"\1", " ".join(prompt.split()))
    return re.sub(r"^[\s,.;:]+|[\s,;:]+$", "", prompt)


def named_label(prompt: str, labels: Sequence[str]) -> str | None:
    """Return the longest of `labels` that stands in a prompt, in whatever letter case; None if none does."""
    found = [label for label in labels
             if re.search(rf"(?<!\w){_words(label)}(?!\w)", prompt, re.IGNORECASE)]
    return max(found, key=len, default=None)


def _words(text: str) -> str:
    """Return a pattern of `text`, whatever spaces or underscores are between its words."""
    return r"[\s_]+".join(map(re.escape, re.split(r"[\s_]+", text)))
