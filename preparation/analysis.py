"""What is measured on each frame of footage, in one pass, and kept on disk under the file's content.

Frames are looked at small, and of each only THUMB x THUMB cells stay in memory: 3 MB for three minutes of
footage, 60 MB for an hour.
"""

import functools
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from preparation.footage import small_frames
from utils.errors import UserError
from utils.files import digest_of, file_digest, replacing
from utils.video import VideoInfo, glance, probe

VERSION = 2             # of what is measured; a cached file of another version is measured again
THUMB = 16              # cells a side
CHANGE_UNIT = 1 / 8     # grey levels, in which changes are kept as bytes
SAME_CELL = 0.4         # grey levels: if no cell changes by more, the frame shows the picture before it again
FAINT = 0.03            # of the greatest recent step: an encoder refines a repeated picture by less than this
FADING = 0.95           # the factor by which the greatest recent step shrinks with every frame
NOISY = 64              # of 256 cells: the change that so many cells stay below is noise. It is subtracted
CAMERA_STILL = 1        # grey levels: before a still camera the median cell changes by less
SHARPNESS_EVERY = 3     # frames
BLACK_LUMA = 16         # the luma of black in video, which is grey level 0 here
MOST_SKIPPED = 4        # repeated frames in a row that the shot detector is not shown
STILLS_PER_SECOND = 1   # pictures kept for the page


@dataclass(frozen=True)
class Analysis:
    """One video file and its T frames. Changes are from the frame before; the first frame has none."""

    path: Path
    digest: str             # SHA-256 of the file
    info: VideoInfo
    fps: float              # of the T frames
    cuts: np.ndarray        # first frames of new shots, int64
    thumbs: np.ndarray      # (T 16 16) grey levels, uint8
    changes: np.ndarray     # (T 16 16) by which each cell changes once brightness and camera are allowed for
    steps: np.ndarray       # (T) grey levels by which the cell changes that changes most, as recorded
    sharpness: np.ndarray   # (T) of the picture's edges, whatever their number and contrast
    stills: tuple[bytes, ...]   # JPEG, one a second
    damage: str             # what the decoder complained of; empty if nothing

    @property
    def num_frames(self) -> int:
        return len(self.thumbs)

    def still_at(self, frame: int) -> bytes:
        return self.stills[min(int(frame / self.fps * STILLS_PER_SECOND), len(self.stills) - 1)]


def analyse(path: Path, cache: Path) -> Analysis:
    """Return the analysis of a video, from `cache` if the same content was analysed before.

    Raises UserError if the file cannot be read.
    """
    info, digest = glance(path), file_digest(path)
    kept = cache / f"{digest_of([digest, VERSION])[:24]}.npz"
    if not kept.exists():
        measured = _measure(path, info)
        with replacing(kept) as partial, open(partial, "wb") as file:
            np.savez(file, **measured)
    with np.load(kept, allow_pickle=False) as stored:   # arrays only: a pickle in the cache is refused
        arrays = {name: stored[name] for name in stored.files}
    ends = np.cumsum(arrays.pop("still_sizes"))
    pixels = arrays.pop("still_bytes").tobytes()
    stills = tuple(pixels[start:end] for start, end in pairwise((0, *ends)))
    damage = str(arrays.pop("damage"))
    info = probe(path) if damage else info   # as in `_measure`
    return Analysis(path, digest, info, info.fps, stills=stills, damage=damage, **arrays)


def _measure(path: Path, info: VideoInfo) -> dict[str, np.ndarray]:
    thumbs, changes, steps, sharpness, stills, complaints = [], [], [], [], [], []
    shots, before, recent = _ShotFinder(), None, 0.0
    for index, planes in enumerate(small_frames(path, info, complaints)):
        grey = planes[:len(planes) * 2 // 3]
        frame = cv2.cvtColor(planes, cv2.COLOR_YUV2BGR_I420)
        half = _resized(grey, grey.shape[1] // 2, grey.shape[0] // 2)
        half = cv2.subtract(half, BLACK_LUMA).astype(np.float32)   # not below 0
        before = half if before is None else before
        cells = _resized(cv2.absdiff(before, half), THUMB, THUMB)
        steps.append(float(cells.max()))
        is_faint = index > 0 and steps[-1] < max(SAME_CELL, FAINT * recent)
        recent = max(FADING * recent, steps[-1])
        thumbs.append(_resized(half, THUMB, THUMB).astype(np.uint8))
        changes.append(_subject_change(before, half, cells))
        sharpness.append(sharpness[-1] if index % SHARPNESS_EVERY else _sharpness(grey, half))
        shots.show(index, frame, is_faint)
        if index >= len(stills) * info.fps / STILLS_PER_SECOND:
            stills.append(cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 75])[1])
        before = half
    if complaints or not thumbs:
        whole = probe(path)   # decodes all of it, and refuses what breaks off in the middle
        if whole != info:
            return _measure(path, whole)
    if not thumbs:
        raise UserError(f"{path}: no frame of it can be decoded. Remove it, or re-encode it as H.264.")
    return {"cuts": np.array(shots.cuts, np.int64), "thumbs": np.stack(thumbs), "changes": np.stack(changes),
            "steps": np.array(steps, np.float32), "sharpness": np.array(sharpness, np.float32),
            "still_sizes": np.array([len(still) for still in stills]), "still_bytes": np.concatenate(stills),
            "damage": np.array(complaints[0][:100] if complaints else "")}


class _ShotFinder:
    """PySceneDetect's AdaptiveDetector, fed frame by frame; `cuts` are the first frames of new shots.

    It compares a frame's change with that of its neighbours. Where a film of 10 frames a second lies in a
    file of 30, two of three frames change by nothing, and every third would count as a cut. So short repeats
    are not shown to it.
    """

    def __init__(self):
        self.cuts: list[int] = []
        self._detector, self._skipped = _detector_class()(min_scene_len=2), 0

    def show(self, index: int, frame: np.ndarray, is_faint: bool) -> None:
        self._skipped = self._skipped + 1 if is_faint else 0
        if not 1 <= self._skipped <= MOST_SKIPPED:
            small = _resized(frame, frame.shape[1] // 4, frame.shape[0] // 4)
            # a number does for a timecode, whose arithmetic takes as long as a small frame
            self.cuts += self._detector.process_frame(index, small)


@functools.cache
def _detector_class():
    """Return AdaptiveDetector with a quicker way to its score, the mean change of hue, saturation and luma.

    If a later PySceneDetect does not call this method, its own slower way gives the same score.
    """
    from scenedetect import AdaptiveDetector

    class Detector(AdaptiveDetector):
        _before = None

        def _calculate_frame_score(self, timecode: int, frame_img: np.ndarray) -> float:
            colours = cv2.cvtColor(frame_img, cv2.COLOR_BGR2HSV)
            before, self._before = self._before, colours
            return 0.0 if before is None else cv2.norm(colours, before, cv2.NORM_L1) / colours.size

    return Detector


def _subject_change(before: np.ndarray, half: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Return by how much each cell changes, in CHANGE_UNITs (16 16) uint8, if the camera had been still.

    Where most of the picture changes by more than CAMERA_STILL, the picture before is moved as the camera
    moved and made as bright as the new one, unless that leaves more change than `cells`, the change as
    recorded. Noise, which all cells share, is subtracted.
    """
    height, width = half.shape
    if _median(cells) > CAMERA_STILL:
        # it applies the window to the pictures themselves
        (x, y), response = cv2.phaseCorrelate(before.copy(), half.copy(), _window(width, height))
        if response < 0.1 or max(abs(x), abs(y)) > min(width, height) / 8:
            x = y = 0
        moved = cv2.warpAffine(before, np.float32([[1, 0, x], [0, 1, y]]), (width, height),
                               borderMode=cv2.BORDER_REPLICATE)
        moved *= cv2.mean(half)[0] / max(cv2.mean(moved)[0], 1)
        steadied = _resized(cv2.absdiff(moved, half), THUMB, THUMB)
        cells = steadied if steadied.sum() < cells.sum() else cells
    cells = np.maximum(cells - np.partition(cells.ravel(), NOISY)[NOISY], 0)
    return np.minimum(cells / CHANGE_UNIT, 255).astype(np.uint8)


def _resized(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def _median(cells: np.ndarray) -> float:
    """Return the median of THUMB x THUMB cells; np.median takes five times as long for so few."""
    middle = cells.size // 2
    low, high = np.partition(cells.ravel(), (middle - 1, middle))[middle - 1:middle + 1]
    return (low + high) / 2


@functools.lru_cache(maxsize=8)
def _window(width: int, height: int) -> np.ndarray:
    return cv2.createHanningWindow((width, height), cv2.CV_32F)


def _sharpness(grey: np.ndarray, half: np.ndarray) -> float:
    """Return the variance of the Laplacian, divided by the contrast and by the Laplacian at half the size.

    The two divisors make scenes comparable: snow has few edges, and they can be sharp.
    """
    contrast, fine, coarse = (cv2.meanStdDev(picture)[1][0, 0] for picture in (
        grey, cv2.Laplacian(grey, cv2.CV_16S), cv2.Laplacian(half, cv2.CV_32F)))
    return float(fine ** 2 / max(contrast * coarse, 1))
