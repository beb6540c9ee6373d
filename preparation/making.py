"""From the chosen windows to files: names, captions, and cutting what is not there yet."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from preparation.cropping import box_of
from preparation.footage import CUT_VERSION, Cut, write_cuts
from preparation.review import DROPPED_AT
from preparation.windows import Wanted, Window
from utils.errors import UserError
from utils.files import NotWritten, digest_of
from utils.video import read_frames, video_metadata

CUTS_AT_ONCE = 4   # encoders in one pass over a file, each with frames of its own in memory


def plan_cuts(chosen: Sequence[Window], folder: Path, crop: str | None, wanted: Wanted) -> list[Cut]:
    """Return the clip that each window becomes."""
    stems = [f"{_plain(window.analysis.path.stem)}_{window.span[0] / window.analysis.fps:06.2f}s"
             for window in chosen]
    counts, cuts = Counter(stems), []
    for window, stem in zip(chosen, stems, strict=True):
        digest, frames = window.analysis.digest, tuple(map(int, window.frames))
        box, size = box_of(window, crop, wanted)
        of_two = f"_{digest[:6]}" if counts[stem] > 1 else ""   # two files may have one name
        name = f"{stem}{of_two}.mp4"
        recipe = {"source": digest, "first": frames[0], "num_frames": len(frames), "fps": window.fps,
                  "frames": digest_of(frames)[:16], "box": list(box), "size": list(size),
                  "version": CUT_VERSION}
        cuts.append(Cut(folder / name, frames, window.fps, box, size, recipe))
    return cuts


def cut_missing(chosen: Sequence[Window], cuts: Sequence[Cut],
                say: Callable[[str], None]) -> dict[Path, UserError]:
    """Write the clips that are not there yet, file by file; clips that the user dropped stay dropped.

    Returns the files that could not be cut. Raises NotWritten if the disk is full.
    """
    missing, failed = defaultdict(list), {}
    for window, cut in zip(chosen, cuts, strict=True):
        dropped = cut.path.parent / DROPPED_AT / cut.path.name
        if not any(path.exists() and video_metadata(path) == cut.recipe for path in (cut.path, dropped)):
            missing[window.analysis.path].append((window, cut))
    for path, parts in missing.items():
        parts.sort(key=lambda part: part[1].frames)
        for first in range(0, len(parts), CUTS_AT_ONCE):
            some = parts[first:first + CUTS_AT_ONCE]
            try:
                write_cuts(path, some[0][0].analysis.info, [cut for _, cut in some])
            except NotWritten:   # no fault of the file
                raise
            except UserError as error:
                failed[path] = error
                break
            say(f"cut from {path}: {', '.join(cut.path.name for _, cut in some)}")
    return failed


def middle_frame(cut: Cut) -> np.ndarray:
    """Return the middle frame of a clip that was written: uint8 (h w c)."""
    return read_frames(cut.path, [len(cut.frames) // 2])[0]


def settle_captions(report: dict, before: dict | None, written: dict[str, str]) -> None:
    """Put into `report` what the user did to an earlier one: captions edited in text.json, clips dropped."""
    earlier = {clip["file"]: clip for clip in before["clips"]} if before else {}
    for clip in report["clips"]:
        known = earlier.get(clip["file"])
        if known:
            clip["kept"] = known["kept"]
            edited = written.get(clip["file"], known["caption"])
            clip["caption"] = edited if edited != known["proposed"] else clip["caption"]


def remove_outdated(folder: Path, stay: set[str]) -> None:
    """Remove clips that an earlier run cut and that are not among `stay`; other files are left alone."""
    for place in (folder, folder / DROPPED_AT):
        for path in place.glob("*.mp4"):
            if path.name not in stay and {"source", "box"} <= set(video_metadata(path)):
                path.unlink()


def _plain(stem: str) -> str:
    return re.sub(r"[^\w.-]+", "_", stem)[:60].strip("._-") or "clip"
