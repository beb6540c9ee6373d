"""Captions of clips: `clip.txt` beside the clip, else `text.json` in its folder, else a fallback."""

import json
from dataclasses import dataclass
from pathlib import Path

from utils.errors import UserError
from utils.files import write_json

INDEX_NAME = "text.json"


@dataclass(frozen=True)
class CaptionIndex:
    """A folder's text.json: {"clip.mp4": ("caption", ...)}."""

    path: Path
    captions: dict[str, tuple[str, ...]]


def read_caption_index(folder: Path) -> CaptionIndex:
    """Return the captions of text.json in `folder`, none if there is no such file.

    Raises UserError naming every entry that is not a caption or a list of captions.
    """
    path = folder / INDEX_NAME
    if not path.exists():
        return CaptionIndex(path, {})
    try:
        content = json.loads(_read_text(path))
    except ValueError as error:
        raise UserError(f"{path}: is not JSON ({error}). "
                        f"It should be like {{\"clip.mp4\": \"caption\"}}.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: is not a JSON object. It should be like {{\"clip.mp4\": \"caption\"}}.")
    captions, problems = {}, []
    for name, entry in content.items():
        texts = entry if isinstance(entry, list) else [entry]
        if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
            problems.append(f"{path}: the entry of {name!r} is neither a caption nor a list of captions.")
        else:
            captions[name] = tuple(_one_line(text) for text in texts)
    if problems:
        raise UserError(*problems)
    return CaptionIndex(path, captions)


def captions_of(clip_path: Path, index: CaptionIndex, fallback: tuple[str, ...]) -> tuple[str, ...]:
    """Return the captions of one clip, of which training draws one per step.

    Raises UserError if its own caption file is empty or unreadable, or if it has no caption at all.
    """
    beside = clip_path.with_suffix(".txt")
    if beside.exists():
        caption = _one_line(_read_text(beside))
        if not caption:
            raise UserError(f"{beside}: is empty. "
                            f"Write the caption of {clip_path.name} into it, or remove it.")
        return (caption,)
    captions = index.captions.get(clip_path.name) or index.captions.get(clip_path.stem) or fallback
    if not captions:
        missing = f"{index.path.name} has no entry for it" if index.captions else "it has no caption"
        raise UserError(f"{clip_path}: {missing}. "
                        f"Write {beside.name} beside it or give a fallback in the config.")
    return captions


def add_captions(folder: Path, captions: dict[str, str]) -> None:
    """Add {"clip.mp4": "caption"} to text.json in `folder`, so that it is a data folder."""
    known = read_caption_index(folder).captions
    entries = {name: texts[0] if len(texts) == 1 else list(texts) for name, texts in known.items()}
    merged = {**entries, **captions}
    write_json(folder / INDEX_NAME, dict(sorted(merged.items())))


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8 text. Save it as UTF-8.") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None


def _one_line(text: str) -> str:
    return " ".join(text.split())
