"""The words of a prompt that a text encoder does not see, because it takes only so many tokens."""

import json
from collections.abc import Iterable
from pathlib import Path

from utils.errors import UserError, first_line

MARKS = 2   # tokens that mark the start and the end of every prompt


def unseen_words(tokenizer, prompt: str) -> str:
    """Return the end of `prompt` that the text encoder does not see; empty if it sees all of it."""
    limit = tokenizer.model_max_length - MARKS
    tokens = tokenizer(prompt, add_special_tokens=False, verbose=False).input_ids   # without a warning
    return tokenizer.decode(tokens[limit:]).strip() if len(tokens) > limit else ""


def unseen_captions(base_folder: Path, captions: Iterable[str]) -> dict[str, str]:
    """Return {caption: its words that the base's text encoder does not see} for all captions that are too
    long.

    No weight is loaded. The tokenizer takes most of a second to import, so it is loaded only if a caption has
    more bytes than the encoder takes tokens: a token of CLIP stands for at least one byte.
    Raises UserError if the tokenizer cannot be loaded.
    """
    folder = base_folder / "tokenizer"
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    limit = (config.get("model_max_length") or 0) - MARKS
    captions = [caption for caption in dict.fromkeys(captions) if len(caption.encode()) > limit]
    if not captions:
        return {}
    from transformers import CLIPTokenizer

    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder}: cannot be loaded ({first_line(error)}). Copy the whole base "
                        f"again.") from error
    unseen = {caption: unseen_words(tokenizer, caption) for caption in captions}
    return {caption: words for caption, words in unseen.items() if words}
