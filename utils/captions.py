"""Captions of clips: a text file beside the clip, else `text.json` in its folder, else a fallback.

The text file of `clip.mp4` is `clip.mp4.txt` or `clip.txt`. Letter case does not matter: cameras write
IMG_0042.MOV, and IMG_0042.TXT beside it counts.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from utils.errors import UserError, attempt
from utils.files import read_text, write_json
from utils.prompts import checked_text

INDEX_NAME = "text.json"
PROMPTS_NAME = "prompts.txt"   # what the clips of a folder were rendered from; prepare_clips.py writes it


@dataclass(frozen=True)
class CaptionIndex:
    """The captions of a folder's text.json, {"clip.mp4": ("caption", ...)}, and its text files."""

    path: Path
    captions: dict[str, tuple[str, ...]]

    @cached_property
    def text_files(self) -> dict[str, Path]:
        """The text files of the folder by name, as it is written and in lower case."""
        found = sorted(path for path in self.path.parent.glob("*") if path.suffix.lower() == ".txt")
        return _in_any_case({path.name: path for path in found})

    @property
    def content(self) -> dict[str, str | list[str]]:
        """What text.json says: for each clip a caption, or a list of captions."""
        return {name: texts[0] if len(texts) == 1 else list(texts) for name, texts in self.captions.items()}

    @cached_property
    def _entries(self) -> dict[str, str]:
        return _in_any_case({name: name for name in self.captions})

    def text_file(self, clip_path: Path) -> Path | None:
        """Return the text file of a clip, None if it has none."""
        return _find((f"{clip_path.name}.txt", f"{clip_path.stem}.txt"), self.text_files)

    def entry(self, clip_path: Path) -> str | None:
        """Return the name of a clip in text.json, which may leave out the suffix; None if it is not there."""
        return _find((clip_path.name, clip_path.stem), self._entries)


def find_index(folder: Path) -> Path:
    """Return the path of text.json in `folder`, or of Text.json and the like; there may be no such file."""
    path = folder / INDEX_NAME
    if path.exists():
        return path
    return next((found for found in folder.glob("*") if found.name.casefold() == INDEX_NAME), path)


def read_caption_index(folder: Path) -> CaptionIndex:
    """Return the captions of text.json in `folder`, none if there is no such file.

    Raises UserError naming every entry that is not a caption or a list of captions.
    """
    path = find_index(folder)
    if not path.exists():
        return CaptionIndex(path, {})
    try:
        content = json.loads(read_text(path))
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
            what = f"{path}: the caption of {name!r}"
            captions[name] = tuple(attempt(lambda: checked_text(text, what), "", problems) for text in texts)
    if problems:
        raise UserError(*problems)
    return CaptionIndex(path, captions)


def captions_of(clip_path: Path, index: CaptionIndex, fallback: tuple[str, ...]) -> tuple[str, ...]:
    """Return the captions of one clip. Training draws one of them per step.

    Raises UserError if its own caption file is empty or unreadable, or if it has no caption at all.
    """
    if beside := index.text_file(clip_path):
        caption = checked_text(read_text(beside), f"{beside}: the caption")
        if not caption:
            raise UserError(f"{beside}: is empty. Write the caption of {clip_path.name} into it, or remove "
                            f"it.")
        return (caption,)
    entry = index.entry(clip_path)
    captions = index.captions[entry] if entry is not None else fallback
    if not captions:
        missing = f"{index.path.name} has no entry for it" if index.captions else "it has no caption"
        raise UserError(f"{clip_path}: {missing}. "
                        f"Write {clip_path.stem}.txt beside it, or set train_data.fallback_prompt.")
    return captions


def add_captions(folder: Path, captions: dict[str, str]) -> None:
    """Add {"clip.mp4": "caption"} to text.json in `folder`, so that it is a data folder."""
    known = read_caption_index(folder)
    merged = {**known.content, **captions}
    write_json(known.path, dict(sorted(merged.items())))


def _in_any_case(named: dict[str, Any]) -> dict[str, Any]:
    return {name.casefold(): found for name, found in named.items()} | named


def _find(wanted: tuple[str, ...], named: dict[str, Any]) -> Any:
    """Return the entry of the first wanted name that is there, as it is written or else in lower case."""
    return next((named[name] for name in (*wanted, *map(str.casefold, wanted)) if name in named), None)
