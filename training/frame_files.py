"""Every frame that would be trained on, as a picture file: what to look at first when a result is odd.

    FOLDER/{clip}/{number}_{seconds}.png   numbers from 00000 in the order of training, at the trained size;
                                           seconds on the clip's own timeline; a second clip of one name,
                                           as another part of a file is, has the number (2)
    FOLDER/{clip}.png                      a sheet of up to 96 of its frames
    FOLDER/{clip}.shifts.png               its middle frame at every shift (train_data.num_shifts)
"""

import re
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from training.clips import Clip
from utils.errors import UserError
from utils.files import name_key, replacing, replacing_folder, shortened
from utils.video import iter_frames, resize_and_crop

FRAME_NAME = re.compile(r"\d{5,}_\d+\.\d{3}\.png")
ON_SHEET, COLUMNS, SHEET_WIDTH = 96, 8, 1280   # frames, frames a row, pixels
GAP = 4                                        # pixels between frames
NAME_BYTES = 220                               # of a clip's name: file systems take 255 with what is added


def write_frames(exemplars: list[Clip], regularization: list[Clip], folder: Path,
                 progress: Callable[[list], Iterable] = iter) -> None:
    """Write the frames and the sheet of every clip. `progress` wraps the clips.

    Regularization clips go to FOLDER/regularization if one of them is named like an exemplar. Raises
    UserError if something else stands where frames are to be written.
    """
    names = [{name_key(clip.path.name) for clip in clips} for clips in (exemplars, regularization)]
    other = folder / "regularization" if names[0] & names[1] else folder
    targets = _folders(exemplars, folder) + _folders(regularization, other)
    problems = []
    for _, target in targets:
        found = target if target.exists() else sheet_of(target)
        if found.exists() and not _is_ours(found):
            problems.append(f"--frames: {found} is there already, and does not hold frames of a clip. "
                            f"Name another folder.")
    if problems:
        raise UserError(*problems)
    for clip, target in progress(targets):
        write_clip_frames(clip, target)


def _folders(clips: list[Clip], folder: Path) -> list[tuple[Clip, Path]]:
    """Return each clip and the folder of its frames; parts of one file are numbered."""
    folders, taken = [], set()
    for clip in clips:
        stem, number = shortened(clip.path.stem, NAME_BYTES), 1
        name = f"{stem}{clip.path.suffix}"
        while name_key(name) in taken:
            number += 1
            name = f"{stem} ({number}){clip.path.suffix}"
        taken.add(name_key(name))
        folders.append((clip, folder / name))
    return folders


def sheet_of(target: Path) -> Path:
    """Return the file of the sheet that belongs to a folder of frames."""
    return target.with_name(f"{target.name}.png")


def write_clip_frames(clip: Clip, target: Path) -> None:
    """Write the frames of a clip to the folder `target`, and its sheets beside the folder."""
    num_shown = min(ON_SHEET, len(clip.frames))
    shown = set(np.linspace(0, len(clip.frames) - 1, num_shown).round().astype(int).tolist())
    on_sheet = []
    pieces = iter_frames(clip.path, clip.frames, clip.size, is_plain=clip.info.is_plain)
    with replacing_folder(target) as partial:
        for number, (frame, seconds) in enumerate(zip(chain.from_iterable(pieces), clip.seconds)):
            picture = Image.fromarray(frame)
            picture.save(partial / f"{number:05d}_{seconds:.3f}.png", compress_level=1)
            if number in shown:
                on_sheet.append(_small(picture, f"{number}  {seconds:.2f} s"))
    _write_sheet(on_sheet, sheet_of(target))
    if len(clip.shifts) > 1:
        middle = clip.frames[len(clip.frames) // 2]
        recorded = next(iter_frames(clip.path, [middle], is_plain=clip.info.is_plain))[0]
        moved = [_small(Image.fromarray(resize_and_crop(recorded, clip.size, shift)), f"{shift:+.1%}")
                 for shift in clip.shifts]
        _write_sheet(moved, target.with_name(f"{target.name}.shifts.png"))


def _small(picture: Image.Image, label: str) -> Image.Image:
    """Return a picture in the width of a column of a sheet, with a label in its corner."""
    width = SHEET_WIDTH // COLUMNS - GAP
    small = picture.resize((width, max(1, width * picture.height // picture.width)))
    ImageDraw.Draw(small).text((3, 1), label, "white", stroke_width=1, stroke_fill="black")
    return small


def _write_sheet(pictures: list[Image.Image], path: Path) -> None:
    """Write pictures of one size as a sheet of rows."""
    width, height = (side + GAP for side in pictures[0].size)
    sheet = Image.new("RGB", (SHEET_WIDTH, -(-len(pictures) // COLUMNS) * height))
    for place, picture in enumerate(pictures):
        sheet.paste(picture, (place % COLUMNS * width, place // COLUMNS * height))
    with replacing(path) as partial:
        sheet.save(partial)


def _is_ours(target: Path) -> bool:
    return target.is_dir() and all(FRAME_NAME.fullmatch(path.name) for path in target.iterdir())
