"""From the chosen windows to files: names, captions, and cutting what is not there yet."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from preparation.cropping import box_of
from preparation.footage import CUT_VERSION, Cut, write_cuts
from preparation.report import with_statuses
from preparation.review import DROPPED_AT
from preparation.windows import Wanted, Window
from utils.captions import read_caption_index
from utils.errors import UserError
from utils.files import NotWritten, digest_of
from utils.video import read_frames, video_metadata

CUTS_AT_ONCE = 4   # encoders in one pass over a file, each with frames of its own in memory


def was_dropped(window: Window, earlier: list[dict]) -> bool:
    """Say whether the user dropped the clip of a window, or one that shares most of its frames."""
    known = _counterpart(window.analysis.digest, *window.span, earlier)
    return known is not None and not known["kept"]


def plan_cuts(chosen: Sequence[Window], folder: Path, crop: str | None, wanted: Wanted,
              earlier: list[dict]) -> list[Cut]:
    """Return the clip that each window becomes. Clips that the user dropped stay where dropped clips lie."""
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
        path = folder / DROPPED_AT / name if was_dropped(window, earlier) else folder / name
        cuts.append(Cut(path, frames, window.fps, box, size, recipe))
    return cuts


def cut_missing(chosen: Sequence[Window], cuts: Sequence[Cut],
                say: Callable[[str], None]) -> dict[Path, UserError]:
    """Write the clips that are not there yet, file by file.

    Returns the files that could not be cut. Raises NotWritten if the disk is full.
    """
    missing, failed = defaultdict(list), {}
    for window, cut in zip(chosen, cuts, strict=True):
        if not cut.path.exists() or video_metadata(cut.path) != cut.recipe:
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


def earlier_clips(before: dict | None, written: dict) -> list[dict]:
    """Return the clips of earlier runs from the last report, with the captions that text.json has now.

    `before`: the last report. `written`: the captions of text.json, by file name.
    """
    if before is None:
        return []
    # a report of an earlier version of this program has digests of sources, but none of clips
    digests = {entry["file"]: entry.get("digest") for entry in before.get("inputs", [])}
    clips = [clip | {"caption": written.get(clip["file"], clip["caption"])} for clip in before["clips"]]
    return [{"digest": digests.get(clip["source"])} | clip for clip in [*clips, *before.get("earlier", [])]]


def settle(report: dict, earlier: list[dict]) -> dict:
    """Return `report` with what the user decided on `earlier` clips: captions, and which clips were dropped.

    The list `earlier` of the report keeps both for clips that were not chosen again.
    """
    clips, settled = [], []
    for clip in report["clips"]:
        if known := _counterpart(clip["digest"], clip["start"], clip["end"], earlier):
            settled.append(known)
            edited = {"caption": known["caption"]} if known["caption"] != known["proposed"] else {}
            clip = clip | {"kept": known["kept"]} | edited
        clips.append(clip)
    left = [clip for clip in earlier if clip not in settled
            and (not clip["kept"] or clip["caption"] != clip["proposed"])]
    return with_statuses(report | {"clips": clips, "earlier": left})


def _counterpart(digest: str, start: int, end: int, earlier: list[dict]) -> dict | None:
    """Return the earlier clip of the same content that shares most, and more than half, of these frames."""
    shared = {index: min(end, clip["end"]) - max(start, clip["start"])
              for index, clip in enumerate(earlier) if clip["digest"] == digest}
    best = max(shared, key=shared.get, default=None)
    return earlier[best] if best is not None and shared[best] > (end - start) / 2 else None


def remove_outdated(folder: Path, stay: set[Path]) -> int:
    """Remove clips that an earlier run cut and that are not among `stay`, and return how many.

    Other files are left alone, and so are clips that the user has copied into the folder and captioned.
    """
    index, num_removed = read_caption_index(folder), 0
    for place in (folder, folder / DROPPED_AT):
        for path in place.glob("*.mp4"):
            is_own = place == folder and (index.entry(path) or index.text_file(path))
            if path not in stay and not is_own and {"source", "box"} <= set(video_metadata(path)):
                path.unlink()
                num_removed += 1
    return num_removed


def _plain(stem: str) -> str:
    return re.sub(r"[^\w.-]+", "_", stem)[:60].strip("._-") or "clip"
