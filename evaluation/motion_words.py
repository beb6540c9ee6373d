"""The words of a prompt that name the motion: finding them, and the prompt without them.

    MotionName("dance")                            "a cat doing the V* dance on a stage" -> "a cat on a stage"
    MotionName("salsa", "doing the V* dance")      the same, where the recognizer calls the motion "salsa"
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from utils.prompts import IDENTIFIER

DOING = r"(?:\b(?:do|does|doing|perform|performs|performing)\s+)?(?:\b(?:the|an?)\s+)?"


@dataclass(frozen=True)
class MotionName:
    """What the motion is called."""

    label: str                  # by the recognizer
    phrase: str | None = None   # by prompts, as the user gave it

    def patterns(self, tokens: Sequence[str]) -> list[re.Pattern]:
        """Return the patterns of the words that name the motion, to be removed one after the other.

        `tokens` are the words that V*, V2*, ... became, in this order, such as "sks". The first pattern is
        `phrase`. The second is "doing the", an identifier and the label; or an identifier or the label alone.

        An identifier alone names the motion if the videos have one motion. With several motions it must be
        the identifier in `phrase`: without a phrase, nothing tells which motion is meant.
        """
        pieces = IDENTIFIER.split(self.phrase or "")   # texts, and between them the numbers of motions
        numbers = [int(number or 1) if len(tokens) > 1 else None for number in pieces[1::2]]
        names = [f"{identifier_of(tokens)}[\\s-]+{_words(self.label)}", _words(self.label)]
        if numbers or len(tokens) < 2:
            names.insert(1, identifier_of(tokens, numbers[0] if numbers else None))
        texts = [f"{DOING}(?:{'|'.join(names)})"]
        if self.phrase:
            following = (identifier_of(tokens, number) + _words(text)
                         for number, text in zip(numbers, pieces[2::2]))
            texts.insert(0, _words(pieces[0]) + "".join(following))
        return [_whole_words(text) for text in texts]


def identifier_of(tokens: Sequence[str], number: int | None = None) -> str:
    """Return a pattern of the identifier of motion `number`, as V3* or as its token. None: of any motion."""
    written = IDENTIFIER.pattern.replace("(", "(?:") if number is None else \
        r"V1?\*" if number == 1 else rf"V{number}\*"
    mine = tokens if number is None else tokens[number - 1 : number]
    return f"(?:{'|'.join((written, *map(re.escape, mine)))})"


def asks_for_motion(prompt: str, patterns: Sequence[re.Pattern]) -> bool:
    """Say whether `prompt` names the motion, in whatever letter case."""
    return any(pattern.search(prompt) for pattern in patterns)


def without_motion(prompt: str, patterns: Sequence[re.Pattern], tokens: Sequence[str] = ()) -> str:
    """Return `prompt` without the words that name the motion, and without the identifiers of other motions.

    Text alignment compares what is left with the frames.
    """
    for pattern in (*patterns, _whole_words(identifier_of(tokens))):
        prompt = pattern.sub(" ", prompt)
    prompt = re.sub(r"\s+([,.;:!?])", r"\1", " ".join(prompt.split()))
    return re.sub(r"^[\s,.;:]+|[\s,;:]+$", "", prompt)


def named_label(prompt: str, labels: Sequence[str]) -> str | None:
    """Return the longest of `labels` that stands in a prompt, in whatever letter case; None if none does."""
    found = [label for label in labels
             if re.search(rf"(?<!\w){_words(label)}(?!\w)", prompt, re.IGNORECASE)]
    return max(found, key=len, default=None)


def _whole_words(text: str) -> re.Pattern:
    return re.compile(rf"(?<!\w)(?:{text})(?!\w)", re.IGNORECASE)


def _words(text: str) -> str:
    """Return a pattern of `text`, whatever spaces or underscores are between its words."""
    return r"[\s_]+".join(map(re.escape, re.split(r"[\s_]+", text)))
