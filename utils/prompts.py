"""Prompts: their text, the motion identifier in it, and names for the rendered files."""

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

MOTION_TOKEN = "V*"
MAX_SEED = 2**63 - 1
MAX_LENGTH = 10_000   # characters of a prompt; a command line ends at ten times as many
MAX_NAME_BYTES = 180   # file systems allow 255; the rest is for the seed, the suffix and temporary names


@dataclass(frozen=True)
class Prompt:
    seed: int
    text: str


def is_text(given: str) -> bool:
    """Say whether `given` can be written as UTF-8; arguments with other bytes in them cannot."""
    return not any("\ud800" <= letter <= "\udfff" for letter in given)


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


def with_token(text: str, placeholder_token: str) -> str:
    """Return `text` with the motion identifier V* written as `placeholder_token`."""
    return text.replace(MOTION_TOKEN, placeholder_token)


def names_motion(text: str, placeholder_token: str) -> bool:
    """Say whether `text` mentions the motion, as V* or as `placeholder_token`, a word of its own."""
    pattern = rf"(?<!\w){re.escape(placeholder_token)}(?!\w)"
    return MOTION_TOKEN in text or re.search(pattern, text) is not None


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


def file_name(prompt: Prompt, suffix: str = ".mp4", with_digest: bool = False) -> str:
    """Return a name for the video of `prompt` that any file system takes and that no other prompt has.

    Spaces become `_`. Where that loses something (a slash, a quote, length), a digest of the prompt is added.
    """
    name = re.sub(r"[^\w.,()'+=@&!-]", "_", prompt.text)
    name = name.encode()[:MAX_NAME_BYTES].decode(errors="ignore").lstrip(".-").rstrip(". ") or "prompt"
    if with_digest or name.replace("_", " ") != prompt.text:
        name = f"{name}-{hashlib.sha256(prompt.text.encode()).hexdigest()[:8]}"
    return f"{name}_seed{prompt.seed}{suffix}"
