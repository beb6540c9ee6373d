"""Prompts: reading lists of `seed,prompt` lines, the motion identifier, and names for the rendered files."""

import hashlib
import re
import secrets
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from utils.errors import UserError
from utils.files import expanded_path

MOTION_TOKEN = "V*"
MAX_SEED = 2**63 - 1
MAX_LENGTH = 10_000   # characters of a prompt; a command line ends at ten times as many
MAX_NAME_BYTES = 180   # file systems allow 255; the rest is for the seed, the suffix and temporary names


@dataclass(frozen=True)
class Prompt:
    seed: int
    text: str


def read_prompts(given: str, seed: int | None = None) -> list[Prompt]:
    """Return the prompts of a .txt file of `seed,prompt` lines, or of one or several prompts joined by `|`.

    `seed` is for prompts that name none; None draws a random one for each. A prompt given twice with one seed
    is returned once. Raises UserError naming every line that is wrong.
    """
    if not is_text(given):
        raise UserError(f"{given!r} is not UTF-8 text.")
    if given.lower().endswith(".txt"):
        prompts = _read_prompt_file(expanded_path(given), seed)
    else:
        try:
            texts = [clean_text(text) for text in given.split("|")]
        except ValueError as error:
            raise UserError(f"The prompt {error}.") from None
        prompts = [Prompt(_seed_or_random(seed), text) for text in texts if text]
        if not prompts:
            raise UserError("The prompt is empty. "
                            "Say what to render, or name a .txt file of `seed,prompt` lines.")
    return list(dict.fromkeys(prompts))


def is_text(given: str) -> bool:
    """Say whether `given` can be written as UTF-8; arguments with other bytes in them cannot."""
    return not any("\ud800" <= letter <= "\udfff" for letter in given)


def parse_prompt_line(line: str) -> tuple[int | None, str]:
    """Split `seed,prompt` at its first comma; a line that does not begin with a seed is all prompt.

    Raises ValueError with the reason if what stands before the comma is a number and no seed; `3D, ...`,
    which is not a number, is a prompt.
    """
    line = clean_text(line)
    head, comma, tail = (part.strip() for part in line.partition(","))
    if comma and head.isascii() and head.isdigit():
        if int(head) > MAX_SEED:
            raise ValueError(f"the seed {head} is above {MAX_SEED}")
        if not tail:
            raise ValueError(f"the seed {head} has no prompt behind it")
        return int(head), tail
    if comma and not head:   # a table with an empty seed column
        if not tail:
            raise ValueError("there is no prompt behind the comma")
        return None, tail
    if comma and re.fullmatch(r"[-+.]?\d[\d.eE_+-]*", head):
        raise ValueError(f"{head!r} is not a whole number of 0 or above; "
                         f"a line is `seed,prompt` or a prompt alone")
    return None, line


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


def file_name(prompt: Prompt, suffix: str = ".mp4") -> str:
    """Return a name for the video of `prompt` that any file system takes and that no other prompt has.

    Spaces become `_`. Where that loses something (a slash, a quote, length), a digest of the prompt is added.
    """
    name = re.sub(r"[^\w.,()'+=@&!-]", "_", prompt.text)
    name = name.encode()[:MAX_NAME_BYTES].decode(errors="ignore").lstrip(".-").rstrip(". ") or "prompt"
    if name.replace("_", " ") != prompt.text:
        name = f"{name}-{hashlib.sha256(prompt.text.encode()).hexdigest()[:8]}"
    return f"{name}_seed{prompt.seed}{suffix}"


def _read_prompt_file(path: Path, seed: int | None) -> list[Prompt]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). "
                        f"Name a file of `seed,prompt` lines.") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8 text. Save it as UTF-8.") from None
    prompts, problems = [], []
    # not splitlines(): a prompt may hold the rarer separators it also splits at
    for number, line in enumerate(re.split(r"\r\n|\n|\r", text), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            line_seed, prompt = parse_prompt_line(line)
        except ValueError as error:
            problems.append(f"{path}, line {number}: {error}.")
        else:
            prompts.append(Prompt(_seed_or_random(seed) if line_seed is None else line_seed, prompt))
    if problems:
        raise UserError(*problems)
    if not prompts:
        raise UserError(f"{path}: holds no prompts. Write one `seed,prompt` per line.")
    return prompts


def _seed_or_random(seed: int | None) -> int:
    return secrets.randbelow(2**31) if seed is None else seed
