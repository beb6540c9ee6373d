"""Captions of clips: a text file beside the clip, else `text.json` in its folder, else a fallback.

The text file of `clip.mp4` is `clip.mp4.txt` or `clip.txt`. Letter case does not matter: cameras write
IMG_0042.MOV, and IMG_0042.TXT beside it counts. Nor does it matter how accents are stored, as letters of
their own (macOS) or not.
"""

import json
from collections import defaultdict
from collections.abc import Container, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from utils.errors import UserError, attempt
from utils.files import name_key, read_text, write_json
from utils.prompts import checked_text

INDEX_NAME = "text.json"
PROMPTS_NAME = "prompts.txt"   # what the clips of a folder were rendered from; prepare_clips.py writes it


@dataclass(frozen=True)
class CaptionIndex:
    """The captions of a folder's text.json, {"clip.mp4": ("caption", ...)}, and its text files."""

    path: Path
    captions: dict[str, tuple[str, ...]]

    @cached_property
    def text_files(self) -> list[Path]:
        """The text files of the folder."""
        return sorted(path for path in self.path.parent.glob("*") if path.suffix.lower() == ".txt")

    @property
    def content(self) -> dict[str, str | list[str]]:
        """What text.json says: for each clip a caption, or a list of captions."""
        return {name: texts[0] if len(texts) == 1 else list(texts) for name, texts in self.captions.items()}

    def text_file(self, clip_path: Path) -> Path | None:
        """Return the text file of a clip, None if it has none."""
        return self._texts.get(self._name_for(clip_path, self._texts, self._texts_alike))

    def entry(self, clip_path: Path) -> str | None:
        """Return the name of a clip in text.json, which may leave out the suffix; None if it is not there."""
        return self._name_for(clip_path, self.captions, self._entries_alike)

    @cached_property
    def _texts(self) -> dict[str, Path]:
        return {path.stem: path for path in self.text_files}

    @cached_property
    def _texts_alike(self) -> dict[str, list[str]]:
        return _by_key(self._texts)

    @cached_property
    def _entries_alike(self) -> dict[str, list[str]]:
        return _by_key(self.captions)

    @cached_property
    def _clip_names(self) -> set[str]:
        """The names of the folder's clips and other files, with and without their suffixes."""
        return {name for path in self.path.parent.glob("*") if path.suffix.lower() not in (".txt", ".json")
                for name in (path.name, path.stem)}

    def _name_for(self, clip_path: Path, names: Container[str], alike: dict[str, list[str]]) -> str | None:
        """Return which of `names` is meant for a clip: its own, or one that differs in letter case or in how
        accents are stored, and that no other clip has for its own."""
        own = (clip_path.name, clip_path.stem)
        similar = (name for wanted in own for name in alike.get(name_key(wanted), ()))
        return next((name for name in own if name in names),
                    next((name for name in similar if name not in self._clip_names), None))


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


def _by_key(names: Iterable[str]) -> dict[str, list[str]]:
    grouped = defaultdict(list)
    for name in names:
        grouped[name_key(name)].append(name)
    return grouped
