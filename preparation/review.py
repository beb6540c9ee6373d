"""review.html, on which a person drops clips and mends captions, and doing what was decided on it."""

import json
import os
from collections.abc import Container
from pathlib import Path

from preparation.footage import WORK_FOLDER
from preparation.report import REPORT_NAME, with_statuses
from rendering.gallery import write_page
from utils.captions import INDEX_NAME, read_caption_index
from utils.commands import script_command
from utils.errors import UserError
from utils.files import read_text, write_json
from utils.prompts import checked_text

PAGE_NAME = "review.html"
DROPPED_AT = f"{WORK_FOLDER}/dropped"   # below the folder of clips


def write_review(folder: Path, report: dict, stills: list[str], own: dict) -> Path:
    """Write text.json, report.json and the page of a folder of clips; return the page's path.

    `own`: the captions of clips that the user put into the folder.
    """
    left_out = [part | {"still": still} for part, still in zip(report["left_out"], stills, strict=True)]
    content = report | {"folder": folder.resolve().name, "dropped": DROPPED_AT, "left_out": left_out,
                        "keep": script_command("prepare_clips.py", "-o", folder, "--keep")}
    write_json(folder / WORK_FOLDER / "stills.json", stills)
    write_json(folder / REPORT_NAME, report)
    kept = [clip for clip in report["clips"] if clip["kept"]]
    write_json(folder / INDEX_NAME, own | {clip["file"]: clip["caption"] for clip in kept})
    return write_page(folder / PAGE_NAME, PAGE_NAME, content)


def read_report(folder: Path) -> dict | None:
    """Return the report of a folder of clips; None if there is none. Raises UserError if it is damaged."""
    path = folder / REPORT_NAME
    if not path.exists():
        return None
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        return report if isinstance(report["clips"], list) else None
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{path}: is not a report of prepare_clips.py. Remove it, or name another folder."
                        ) from None


def written_captions(folder: Path, report: dict | None) -> tuple[dict, dict]:
    """Return the captions in text.json: of the clips of `report`, and, as they are named, of all others.

    A caption is a text, or a list of texts. The others are of clips that the user put into the folder.
    Raises UserError if text.json cannot be read.
    """
    index = read_caption_index(folder)
    names = {clip["file"]: index.entry(Path(clip["file"])) for clip in (report["clips"] if report else [])}
    written = {file: index.content[name] for file, name in names.items() if name is not None}
    own = {name: caption for name, caption in index.content.items() if name not in names.values()}
    return written, own


def keep(folder: Path, chosen: Path) -> dict:
    """Keep the clips that `chosen`, a file like text.json, names, with its captions; set the others aside.

    Clips set aside lie in the hidden WORK_FOLDER and come back when a later `chosen` names them. Returns the
    report. Raises UserError with every name that is no clip of the folder.
    """
    report = read_report(folder)
    if report is None:
        raise UserError(f"{folder}: holds no {REPORT_NAME}. Name the folder that prepare_clips.py has made.")
    _, own = written_captions(folder, report)
    captions = _read_choice(chosen, {clip["file"] for clip in report["clips"]}, own, folder)
    own = {name: captions.get(name, caption) for name, caption in own.items()}
    stills = read_stills(folder, len(report["left_out"]))
    for clip in report["clips"]:
        clip["kept"] = clip["file"] in captions
        clip["caption"] = captions.get(clip["file"], clip["caption"])
        here, aside = folder / clip["file"], folder / DROPPED_AT / clip["file"]
        if not clip["kept"] and here.exists():
            aside.parent.mkdir(parents=True, exist_ok=True)
            os.replace(here, aside)
        elif clip["kept"] and aside.exists() and not here.exists():   # a clip in the folder was cut later
            os.replace(aside, here)
    report = with_statuses(report)
    write_review(folder, report, stills, own)
    return report


def read_stills(folder: Path, num: int) -> list[str]:
    """Return the `num` stills of the parts of footage that were left out. A copy of the folder may lack them:
    then they are empty."""
    try:
        stills = json.loads((folder / WORK_FOLDER / "stills.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        stills = []
    return stills if isinstance(stills, list) and len(stills) == num else [""] * num


def _read_choice(path: Path, known: set[str], own: Container[str],
                 folder: Path) -> dict[str, str | list[str]]:
    try:
        content = json.loads(read_text(path, "Name the file that the page saved."))
    except ValueError:
        content = None
    content = content if isinstance(content, dict) else {"": []}
    texts = {name: caption if isinstance(caption, list) else [caption] for name, caption in content.items()}
    if not all(several and all(isinstance(text, str) and text.strip() for text in several)
               for several in texts.values()):
        raise UserError(f'{path}: is not of the form {{"clip.mp4": "caption"}}.')
    if strangers := sorted(name for name in set(content) - known if name not in own):
        raise UserError(f"{path}: names {', '.join(strangers)}, "
                        f"which prepare_clips.py did not put into {folder}.")
    if not known & set(content):
        raise UserError(f"{path}: keeps no clip.")
    cleaned = {name: [checked_text(text, f"{path}: the caption of {name}") for text in several]
               for name, several in texts.items()}
    return {name: several[0] if len(several) == 1 else several for name, several in cleaned.items()}
