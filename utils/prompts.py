"""Prompts: their text, the motion identifiers in it, and names for the rendered files.

V* or v* stands for the first motion, V2* for the second, and so on. A base sees a word in the place of each,
its placeholder token. The tokens of several motions are kept as one text with commas between them: "sks,zwx".
"""

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from utils.errors import UserError, attempt

MOTION_TOKEN = "V*"
IDENTIFIER = re.compile(r"[Vv](\d{0,3})\*")   # with the number of the motion, which the first does not need
SPARE_TOKENS = ("zwx", "ohwx", "sks")   # rare words, for motions that have no token of their own
MAX_SEED = 2**63 - 1
MAX_LENGTH = 10_000   # characters of a prompt; a command line ends at ten times as many
MAX_NAME_BYTES = 180   # file systems allow 255; the rest is for the seed, the suffix and temporary names


@dataclass(frozen=True)
class Prompt:
    seed: int
    text: str


def clean_text(text: str) -> str:
    """Return `text` with single spaces between its words.

    Raises ValueError if it has control characters or is longer than any prompt.
    """
    text = " ".join(text.split())
    if len(text) > MAX_LENGTH:
        raise ValueError(f"has {len(text)} characters; a text encoder sees a few hundred")
    if not all(letter.isprintable() or unicodedata.category(letter) == "Cf" for letter in text):
        raise ValueError(f"has control characters: {text!r}")
    return text


def checked_text(text: str, what: str) -> str:
    """Do what `clean_text` does, and raise UserError about `what` where it raises ValueError."""
    try:
        return clean_text(text)
    except ValueError as error:
        raise UserError(f"{what} {error}.") from None


def with_token(text: str, placeholder_token: str) -> str:
    """Return `text` with the motion identifiers V*, V2*, ... written as the tokens in `placeholder_token`.

    Raises UserError if `text` asks for more motions than `placeholder_token` has tokens.
    """
    tokens = tokens_in(placeholder_token)

    def token(found: re.Match) -> str:
        number = int(found[1] or 1)
        if not 1 <= number <= len(tokens):
            known = ", ".join(f"{identifier(index)} ({word})" for index, word in enumerate(tokens, start=1))
            raise UserError(f"\"{text}\" asks for {found[0]}, and the motions are {known}. Add a word to "
                            f"placeholder_token where it is trained, or its -m where it is rendered.")
        return tokens[number - 1]

    return IDENTIFIER.sub(token, text)


def tokens_in(placeholder_token: str) -> list[str]:
    """Return the token of each motion in turn."""
    return placeholder_token.split(",")


def with_tokens(prompts: Sequence[Prompt], placeholder_token: str) -> list[Prompt]:
    """Do what `with_token` does for every prompt. Raises UserError with a line for each prompt that asks for
    more motions than `placeholder_token` has tokens."""
    problems: list[str] = []
    texts = [attempt(lambda prompt=prompt: with_token(prompt.text, placeholder_token), "", problems)
             for prompt in prompts]
    if problems:
        raise UserError(*dict.fromkeys(problems))
    return [replace(prompt, text=text) for prompt, text in zip(prompts, texts)]


def identifier(number: int) -> str:
    """Return what stands for a motion in captions and prompts: V*, V2*, V3*, ..."""
    return MOTION_TOKEN if number == 1 else f"V{number}*"


def with_identifiers(text: str, placeholder_token: str) -> str:
    """Return `text` with the tokens written as V*, V2*, ...: the reverse of `with_token`."""
    tokens = tokens_in(placeholder_token)
    return re.sub(token_pattern(placeholder_token), lambda word: identifier(1 + tokens.index(word[0])), text)


def names_motion(text: str, placeholder_token: str) -> bool:
    """Say whether `text` mentions a motion: V*, V2*, ... or, as a word by itself, a token in
    `placeholder_token`."""
    return bool(IDENTIFIER.search(text) or re.search(token_pattern(placeholder_token), text))


def token_pattern(placeholder_token: str) -> str:
    """Return a regular expression for any token in `placeholder_token` that stands by itself."""
    return rf"(?<!\w)(?:{'|'.join(map(re.escape, tokens_in(placeholder_token)))})(?!\w)"


def with_spare_tokens(placeholder_token: str, num_motions: int) -> str:
    """Return `placeholder_token` with spare words added, until each of `num_motions` has one or no spare word
    is left."""
    tokens = tokens_in(placeholder_token)
    spare = [token for token in SPARE_TOKENS if token not in tokens]
    return ",".join([*tokens, *spare[:max(0, num_motions - len(tokens))]])


def file_names(prompts: Iterable[Prompt], folder: Path) -> dict[str, Prompt]:
    """Return {name of the video in `folder`: prompt}, in the order of `prompts`.

    Windows and macOS take names that differ only in letter case for one file. So the second of such names
    gets a digest of its prompt, unless a file of exactly this name is in `folder` already.
    """
    there = set(os.listdir(folder)) if os.path.isdir(folder) else set()
    taken, names = {name.lower() for name in there}, {}
    for prompt in dict.fromkeys(prompts):
        name = file_name(prompt)
        if name not in there and name.lower() in taken:
            name = file_name(prompt, with_digest=True)
        taken.add(name.lower())
        names[name] = prompt
    return names


def file_name(prompt: Prompt, with_digest: bool = False) -> str:
    """Return a name for the video of `prompt` that any file system takes and that no other prompt has.

    Spaces become `_`. Where that loses something (a slash, a quote, length), a digest of the prompt is added.
    """
    name = re.sub(r"[^\w.,()'+=@&!-]", "_", prompt.text)
    name = name.encode()[:MAX_NAME_BYTES].decode(errors="ignore").lstrip(".-").rstrip(". ") or "prompt"
    if with_digest or name.replace("_", " ") != prompt.text:
        name = f"{name}-{hashlib.sha256(prompt.text.encode()).hexdigest()[:8]}"
    return f"{name}_seed{prompt.seed}.mp4"
