"""The words of a prompt that a text encoder does not see, because it takes only so many tokens."""

from collections.abc import Iterable
from pathlib import Path

from models.base_parts import loading, part_config

MARKS = 2   # tokens that mark the start and the end of every prompt
PLACES = 77   # position embeddings of CLIP, for a text encoder whose config does not say the number


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
    limit = most_tokens(base_folder) - MARKS
    captions = [caption for caption in dict.fromkeys(captions) if len(caption.encode()) > limit]
    if not captions:
        return {}
    tokenizer = load_tokenizer(base_folder)
    unseen = {caption: unseen_words(tokenizer, caption) for caption in captions}
    return {caption: words for caption, words in unseen.items() if words}


def load_tokenizer(base_folder: Path):
    """Return the tokenizer of a base. Raises UserError if it cannot be loaded."""
    from transformers import CLIPTokenizer

    with loading(base_folder / "tokenizer"):
        return CLIPTokenizer.from_pretrained(base_folder / "tokenizer", local_files_only=True,
                                             model_max_length=most_tokens(base_folder))


def most_tokens(base_folder: Path) -> int:
    """Return the most tokens of a prompt, marks included: what the tokenizer's config says, and at most what
    the text encoder has places for. Some configs say nothing, or a number without meaning."""
    places = part_config(base_folder, "text_encoder").get("max_position_embeddings", PLACES)
    return min(part_config(base_folder, "tokenizer").get("model_max_length") or places, places)
