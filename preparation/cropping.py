"""What part of the picture a clip shows: all of it, or a box around what moves."""

import numpy as np

from preparation.windows import Wanted, Window
from utils.video import trained_size

OUTLIERS = 0.03     # share of all movement that may lie outside the box, on each of its sides
PADDING = 0.2       # of the box, added on each side
STRIDE = 64         # pixels per coarsest cell of ZeroScope, whose multiples clips are trained at
MOST_PIXELS = 1280 * 720   # of a written clip; larger ones are scaled down


def box_of(window: Window, crop: str | None,
           wanted: Wanted) -> tuple[tuple[int, int, int, int], tuple[int, int]]:
    """Return the box (left, top, width, height) a clip shows, in pixels, and the size at which it is written.

    `crop`: None for the whole picture; square; aspect, which is the picture's own. Sizes are even, as H.264
    wants them.
    """
    whole = window.analysis.info.width, window.analysis.info.height
    if crop is None:
        width, height, left, top = *whole, 0, 0
    else:
        (x0, x1), (y0, y1) = _moving(window.movement, whole)
        ratio = 1.0 if crop == "square" else whole[0] / whole[1]
        width = max(x1 - x0, (y1 - y0) * ratio) * (1 + 2 * PADDING)
        trained = trained_size(round(1000 * ratio), 1000, wanted.size, STRIDE, wanted.use_bucketing)
        width = max(width, trained[0], trained[1] * ratio)
        width = min(width, whole[0], whole[1] * ratio)
        height = width / ratio
        left = min(max((x0 + x1 - width) / 2, 0), whole[0] - width)
        top = min(max((y0 + y1 - height) / 2, 0), whole[1] - height)
    width, height = _even(width), _even(height)
    scale = min(1.0, (MOST_PIXELS / (width * height)) ** 0.5)
    return (round(left), round(top), width, height), (_even(width * scale), _even(height * scale))


def is_too_small(width: int, height: int, wanted: Wanted) -> bool:
    """Say whether training would have to enlarge a clip."""
    trained = trained_size(width, height, wanted.size, STRIDE, wanted.use_bucketing)
    return width < trained[0] or height < trained[1]


def _moving(movement: np.ndarray, whole: tuple[int, int]) -> list[tuple[float, float]]:
    """Return from where to where it moves, in pixels, for x and y."""
    subject = np.maximum(movement - np.median(movement), 0)
    subject *= subject > subject.max() / 4
    ends = []
    for axis, size in ((0, whole[0]), (1, whole[1])):
        share = np.concatenate(([0], np.cumsum(subject.sum(axis)))) / max(subject.sum(), 1e-9)
        edges = np.linspace(0, size, len(share))
        ends.append(tuple(np.interp([OUTLIERS, 1 - OUTLIERS], share, edges)))
    return ends


def _even(size: float) -> int:
    return max(2, int(size + 1e-6) // 2 * 2)
