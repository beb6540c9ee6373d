"""The gallery: write_gallery puts video_lightbox.html, with the list of a folder's videos, into that folder.

The page is one self-contained file that opens straight from disk. What it is told about the videos goes into
a JSON block that the browser never executes; videos are never decoded here, so writing a gallery is cheap
enough to do after every video. The same page dropped by hand into a folder reads the folder itself, by the
rules below: `describe` in video_lightbox.html mirrors list_videos, and a test holds the two together.

    videos.json   {"clip.mp4": {"prompt": "a man", "seed": 7, "group": "step 9", "scores": {"motion": 0.93}}}
    clip.mp4.txt  the caption of clip.mp4, as in a data folder; or clip.txt
    text.json     {"clip.mp4": "caption" or ["one", "another"]}

lie beside the video. Each is optional, in whole or in part, and the first one that says something counts. The
last resort is the video's own name, `a_man_skiing_seed7.mp4`. The names of captions may be in upper or lower
case.
"""

import json
import math
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from utils.captions import CaptionIndex, find_index
from utils.commands import ROOT
from utils.containers import VIDEO_SUFFIXES, is_animated
from utils.files import nfc, replacing, write_json

PAGE_NAME = "video_lightbox.html"
MAX_DEPTH = 3  # results/{run}/samples/step_01000 seen from results
MAX_SAFE_INTEGER = 2**53 - 1  # JavaScript reads larger numbers as their neighbours
LIST_BLOCK = '<script type="application/json" id="list">{}</script>'


def write_gallery(folder: Path) -> Path:
    """Write the gallery of the videos in and below `folder` into `folder`, and return its path.

    Raises UserError if the folder cannot be written.
    """
    listing = {"title": title_of(folder), "videos": list_videos(folder)}
    return write_page(folder / PAGE_NAME, PAGE_NAME, listing)


def write_page(path: Path, template_name: str, content: Any) -> Path:
    """Write a page of utils/ to `path`, with `content` in its JSON block, which no browser executes."""
    template = (ROOT / "utils" / template_name).read_text(encoding="utf-8")
    empty_block = LIST_BLOCK.format("")
    assert template.count(empty_block) == 1, f"{template_name} has lost its empty list"
    page = template.replace(empty_block, LIST_BLOCK.format(to_inert_json(content)))
    with replacing(path) as partial:
        partial.write_text(page, encoding="utf-8", newline="\n")
    return path


def forget_scores(folder: Path, names: Iterable[str]) -> None:
    """Remove the scores of videos that are about to be written from videos.json."""
    root = folder.resolve()
    content = sidecar_json(root, root / "videos.json")
    scored = [name for name in names if isinstance(content.get(name), dict) and "scores" in content[name]]
    for name in scored:
        del content[name]["scores"]
    if scored:
        write_json(root / "videos.json", content)


def to_inert_json(value: Any) -> str:
    """JSON that holds nothing a HTML parser could take for markup, whatever the prompts say. ASCII only."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def title_of(folder: Path) -> str:
    """The folder's name; for the samples of one step also the run they belong to."""
    folder = folder.resolve()
    if folder.parent.name == "samples":
        return f"{folder.parent.parent.name} · {group_label(folder.name)}"
    return folder.name or "Videos"


def list_videos(folder: Path) -> list[dict[str, Any]]:
    """One entry per video in and below `folder`, in natural order: file, prompt, seed or None, group, scores.

    Left out: hidden and half-written files, checkpoints, what lies deeper than MAX_DEPTH, and links that lead
    out of the folder. A sidecar that cannot be read, or says something of the wrong type, is passed over.
    """
    root = folder.resolve()
    videos = []
    for directory, subdirectories, names in os.walk(root):
        here, inside = Path(directory), Path(directory).relative_to(root)
        if len(inside.parts) == MAX_DEPTH:
            subdirectories.clear()
        # in place: where os.walk goes next
        subdirectories[:] = [name for name in subdirectories if is_listed(f"{name}/")]
        paths = [here / name for name in names if is_listed(name) and is_file_within(root, here / name)]
        paths = [path for path in paths if is_video(path)]
        if paths:
            facts = sidecar_json(root, here / "videos.json")
            facts = {nfc(name): fact for name, fact in facts.items()} | facts
            index_path = find_index(here)
            captions = CaptionIndex(index_path, sidecar_json(root, index_path))
        for path in paths:
            beside, entry = captions.text_file(path), captions.entry(path)
            caption = sidecar_text(root, beside) if beside else ""
            caption = caption or captions.captions.get(entry)
            fact = facts.get(path.name, facts.get(nfc(path.name)))
            description = describe(inside, path.name, fact, caption)
            videos.append({"file": (inside / path.name).as_posix(), **description})
    return sorted(videos, key=lambda video: natural_key(video["file"]))


def describe(inside: Path, name: str, facts: Any, caption: Any) -> dict[str, Any]:
    """Prompt, seed, group and scores of one video; what is malformed counts as absent."""
    facts = facts if isinstance(facts, dict) else {}
    named_prompt, named_seed = split_name(name)
    seed = facts.get("seed") if is_integer(facts.get("seed")) else named_seed
    scores = facts.get("scores") if isinstance(facts.get("scores"), dict) else {}
    return {
        "prompt": first_text(facts.get("prompt")) or first_text(caption) or named_prompt,
        "seed": str(seed) if seed is not None and abs(seed) > MAX_SAFE_INTEGER else seed,
        "group": first_text(facts.get("group")) or group_label(inside.as_posix()),
        "scores": {label: score for label, score in scores.items() if is_finite_number(score)},
    }


def split_name(name: str) -> tuple[str, int | None]:
    """Prompt and seed from a file name: `a_man_seed7.mp4` -> ("a man", 7)."""
    stem = name[: -len(Path(name).suffix)]
    match = re.fullmatch(r"(.*)_seed(-?[0-9]+)(.*)", stem, re.DOTALL)
    if match is None:
        return stem.replace("_", " "), None
    return (match[1] + match[3]).replace("_", " "), int(match[2])


def group_label(inside: str) -> str:
    """The folders between gallery and video, for people: `run/samples/step_01000` -> `run / step 1000`."""
    parts = [part for part in inside.split("/") if part not in (".", "samples")]
    steps = [re.fullmatch(r"step_0*([0-9]+)", part) for part in parts]
    labels = [part if step is None else f"step {step[1]}" for part, step in zip(parts, steps, strict=True)]
    return " / ".join("step 0 (base)" if label == "step 0" else label for label in labels)


def is_listed(name: str) -> bool:
    """Whether a file or folder of this name is for people: not hidden, not half-written, no checkpoint.

    The name of a folder ends in a slash: a file `checkpoint-charlie.mp4` is a video.
    """
    return re.search(r"^[.~]|^checkpoint-[^/]*/$|\.(tmp|part|partial)\.\w+/?$", name) is None


def is_video(path: Path) -> bool:
    """Whether the file is a video by its name, or an animated WebP.

    A video that no browser plays is listed too, and the page says that it cannot be played. An animated PNG
    has to be named .apng, because single frames are saved as .png.
    """
    suffix = path.suffix.lower()
    return suffix in VIDEO_SUFFIXES or suffix == ".webp" and is_animated(path)


def is_file_within(root: Path, path: Path) -> bool:
    try:
        if not path.is_symlink():   # its folder lies within `root`: only links of folders and files lead out
            return path.is_file()
        path = path.resolve()
        return path.is_relative_to(root) and path.is_file()
    except (OSError, RuntimeError):  # links that point at one another
        return False


def sidecar_text(root: Path, path: Path) -> str:
    """The text of a sidecar, or nothing if there is none to be had."""
    if not is_file_within(root, path):
        return ""
    try:
        # bytes that are not UTF-8 show as the replacement character, here as in the browser
        return path.read_text(encoding="utf-8-sig", errors="replace").strip()
    except OSError:
        return ""


def sidecar_json(root: Path, path: Path) -> dict[str, Any]:
    """The object in a JSON sidecar, or an empty one if there is none to be had."""
    try:
        value = json.loads(sidecar_text(root, path) or "{}")
    except (ValueError, RecursionError):  # RecursionError: ten thousand opening brackets
        return {}
    return value if isinstance(value, dict) else {}


def first_text(value: Any) -> str:
    """The string, or the first one of a list of captions, without the space around it; else nothing."""
    texts = value if isinstance(value, list) else [value]
    return next((text.strip() for text in texts if isinstance(text, str) and text.strip()), "")


def is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_finite_number(value: Any) -> bool:
    if is_integer(value):
        return abs(value) <= MAX_SAFE_INTEGER
    return isinstance(value, float) and math.isfinite(value)


def natural_key(file: str) -> tuple:
    """Sorts folder by folder and step_900 before step_1000."""
    parts = [re.split(r"([0-9]+)", part.casefold()) for part in file.split("/")]  # text, digits, text, ...
    return [[int(run) if i % 2 else run for i, run in enumerate(runs)] for runs in parts], file
