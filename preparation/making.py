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
from utils.captions import read_caption_index
from utils.errors import UserError
from utils.files import NotWritten, digest_of
from utils.video import read_frames, video_metadata

Moment = tuple[str, int]   # where a clip begins: digest of its source, frame
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


def earlier_clips(before: dict | None, written: dict) -> dict[Moment, dict]:
    """Return the clips of earlier runs, as the last report has them, with the captions that are `written`."""
    if before is None:
        return {}
    # reports of earlier versions name the digest beside the source alone
    digests = {entry["file"]: entry.get("digest") for entry in before.get("inputs", [])}
    clips = [*before.get("earlier", []),
             *(clip | {"caption": written.get(clip["file"], clip["caption"])} for clip in before["clips"])]
    return {(clip.get("digest", digests.get(clip["source"])), clip["start"]): clip for clip in clips}


def settle(report: dict, earlier: dict[Moment, dict]) -> dict:
    """Return `report` with what the user did to `earlier` clips: captions edited, clips dropped.

    Its list `earlier` keeps what the user did to clips that were not chosen again.
    """
    clips, left = [], dict(earlier)
    for clip in report["clips"]:
        known = left.pop((clip["digest"], clip["start"]), None)
        if known:
            edited = known["caption"] != known["proposed"]
            clip = clip | {"kept": known["kept"], "caption": known["caption" if edited else "proposed"]}
        clips.append(clip)
    decided = [clip | {"digest": digest} for (digest, _), clip in left.items()
               if not clip["kept"] or clip["caption"] != clip["proposed"]]
    return report | {"clips": clips, "earlier": decided}


def remove_outdated(folder: Path, stay: set[str]) -> int:
    """Remove clips that an earlier run cut and that are not among `stay`, and return how many.

    Other files are left alone, and so are clips that the user has copied into the folder and captioned.
    """
    index, num_removed = read_caption_index(folder), 0
    for place in (folder, folder / DROPPED_AT):
        for path in place.glob("*.mp4"):
            is_own = place == folder and (index.entry(path) or index.text_file(path))
            if path.name not in stay and not is_own and {"source", "box"} <= set(video_metadata(path)):
                path.unlink()
                num_removed += 1
    return num_removed


def _plain(stem: str) -> str:
    return re.sub(r"[^\w.-]+", "_", stem)[:60].strip("._-") or "clip"
