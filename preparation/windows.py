"""Which windows of the footage are worth training on: something moves, sharp, unlike the others; the best are chosen.

    find_windows    every window of a stretch, scored, or with the reason why it cannot be used
    choose          the best N, spread over files and shots
"""

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from preparation.analysis import CHANGE_UNIT, THUMB, Analysis
from preparation.shots import Span, Stretch
from utils.video import frame_step

STRIDES = 4            # starts of windows tried per length of a window
MOVES = 0.1            # grey levels a frame, mean of the picture, below which nothing worth learning moves
MOVES_CELL = 1.0       # the same for the cell that moves most: a small subject is enough
BLURRED = 0.2          # of the sharpness of the file's best windows
SAME_CELLS = 6         # grey levels: nearly all cells of two windows differ by less where they show the same
AGAIN = 0.6            # what a window's score counts for each clip already chosen from its shot, and from its file
TOO_FEW_PIXELS = "smaller than the trained size"


@dataclass(frozen=True)
class Wanted:
    """What clips training will want."""

    seconds: float      # of a clip
    fps: float          # of training
    window: int         # frames of a training window, which every clip must have
    size: tuple[int, int]   # width, height in pixels
    use_bucketing: bool     # whether the size stands for an area alone


@dataclass(frozen=True)
class Window:
    """A possible clip: `frames` of one file, shown at `fps`."""

    analysis: Analysis
    stretch: Stretch
    frames: np.ndarray
    fps: float
    score: float     # grey levels by which the picture changes a second, the camera allowed for
    reason: str      # why it was chosen or left out; empty while undecided

    @property
    def span(self) -> tuple[int, int]:
        return int(self.frames[0]), int(self.frames[-1]) + 1

    @property
    def movement(self) -> np.ndarray:
        """By how many grey levels a frame each cell changes: (16 16)."""
        return self.analysis.changes[self.stretch.frames][self._inside()].mean(0) * CHANGE_UNIT

    def _inside(self) -> np.ndarray:
        all_frames = self.stretch.frames
        return (all_frames > self.frames[0]) & (all_frames <= self.frames[-1])


def find_windows(analysis: Analysis, stretches: list[Stretch], wanted: Wanted) -> tuple[list[Window], list[Span]]:
    """Return windows of a file that can be used and do not overlap, and what else is left out and why."""
    windows, spans = [], []
    for stretch in stretches:
        found = _windows_of(analysis, stretch, wanted)
        if isinstance(found, Span):
            spans.append(found)
        else:
            windows += found
    best = np.percentile([_sharpness(window) for window in windows], 90) if windows else 0
    judged = [replace(window, reason=_fault(window, best)) for window in windows]
    usable = _without_overlap([window for window in judged if not window.reason])
    taken = [window.span for window in usable]
    for window in judged:
        start, end = window.span
        if window.reason and not any(first < end and start < last for first, last in taken):
            if spans and spans[-1].reason == window.reason and spans[-1].start <= start <= spans[-1].end:
                spans[-1] = replace(spans[-1], end=end)
            else:
                spans.append(Span(start, end, window.reason))
    return usable, spans
