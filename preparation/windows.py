"""Which windows of the footage are worth training on: something moves in them, they are sharp and not alike.

    find_windows    the windows of a file that can be used, scored, and why the others cannot
    choose          the best N, spread over files and shots
"""

import functools
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from preparation.analysis import CHANGE_UNIT, Analysis
from preparation.shots import JITTER, Span, Stretch, rate_of

STRIDES = 4            # starts of windows tried per length of a window
SLOWEST = 1 / 1.25     # of the trained rate. Training warns that slower clips are learned too fast
MOVES = 1.0            # grey levels a frame: if no cell changes by more, that is the camera's noise
NOTHING_MOVES = "nothing moves"
STRONG, CLEAR = 60, 15   # grey levels a second. They only choose the words that say why a clip was taken
BLURRED = 0.2          # of the sharpness of the file's best windows
SAME_CELLS = 6         # grey levels: windows in which nearly all cells differ by less show the same
AGAIN = 0.6            # factor on a window's score for each clip already chosen from its shot, and its file


@dataclass(frozen=True)
class Wanted:
    """What clips training will want."""

    seconds: float      # of a clip
    fps: float          # of training
    window: int         # frames of a training window, which every clip must have
    size: tuple[int, int]   # width, height in pixels
    use_bucketing: bool     # whether the size stands for an area alone
    takes_folders: bool = True   # whether the config reads exemplars from folders of clips


@dataclass(frozen=True, eq=False)
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

    @functools.cached_property
    def movement(self) -> np.ndarray:
        """By how many grey levels a frame each cell changes: (16 16)."""
        return _changes(self.analysis, self.stretch, self.frames).mean(0)

    @property
    def sharpness(self) -> float:
        return float(np.median(self.analysis.sharpness[self.frames]))


def find_windows(analysis: Analysis, stretches: list[Stretch],
                 wanted: Wanted) -> tuple[list[Window], list[Span]]:
    """Return the usable windows of a file, without overlap, and the spans left out, with reasons."""
    windows, spans = [], []
    for stretch in stretches:
        found, unused = _windows_of(analysis, stretch, wanted)
        windows += found
        spans += unused
    best = np.percentile([window.sharpness for window in windows], 90) if windows else 0
    judged = [replace(window, reason=_fault(window, best, wanted)) for window in windows]
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


def choose(windows: list[Window], number: int, was_dropped: Callable[[Window], bool] = lambda _: False,
           ) -> tuple[list[Window], list[Window]]:
    """Return the windows to use, best first, and the others; both say why.

    `number` of them are new or were kept before. Those that the user dropped before are returned besides,
    so that they can be brought back, and no window that shows the same takes their place.
    """
    chosen, left, waiting, uses = [], [], list(windows), Counter()

    def worth(window: Window) -> float:
        path = window.analysis.path
        return window.score * AGAIN ** (uses[path] + uses[path, window.stretch.shot])

    while waiting and number:
        best = waiting.pop(int(np.argmax([worth(window) for window in waiting])))
        if repetition := _repetition(best, chosen):
            left.append(replace(best, reason=repetition))
        else:
            chosen.append(replace(best, reason=_merit(best)))
            if not was_dropped(best):
                number -= 1
                uses.update([best.analysis.path, (best.analysis.path, best.stretch.shot)])
    less = "the clips chosen move more, or are of other shots"
    return chosen, left + [replace(window, reason=_repetition(window, chosen) or less) for window in waiting]


def shows_same(one: Window, other: Window) -> bool:
    """Say whether two windows show nearly the same, though they may begin up to half a clip apart."""
    places = np.linspace(one.frames[0], one.frames[-1], 5).round().astype(int)
    late = ((places - places[0]) / one.analysis.fps * other.analysis.fps).round().astype(int)
    half, last = (other.frames[-1] - other.frames[0]) // 2, other.analysis.num_frames - 1 - late[-1]
    firsts = np.arange(max(0, other.frames[0] - half), min(other.frames[0] + half, last) + 1)
    pictures = _even_light(one.analysis.thumbs[places])                     # (5 16 16)
    middles = _even_light(other.analysis.thumbs[firsts + late[2]])          # (firsts 16 16)
    firsts = firsts[np.abs(middles - pictures[2]).mean((1, 2)) < SAME_CELLS]
    others = _even_light(other.analysis.thumbs[firsts[:, None] + late])     # (firsts 5 16 16)
    apart = np.abs(others - pictures)
    moving = np.maximum(one.movement, other.movement)
    moving = moving >= moving.max() / 4
    return any(np.percentile(cells, 90) < SAME_CELLS and cells[:, moving].mean() < SAME_CELLS
               for cells in apart)


def _repetition(window: Window, chosen: list[Window]) -> str:
    """Return which of the windows `chosen` shows the same as `window`, for people; empty if none does."""
    return next((f"nearly the same as {other.analysis.path.name} {times_of(other.analysis, *other.span)}"
                 for other in chosen if shows_same(window, other)), "")


def times_of(analysis: Analysis, start: int, end: int) -> str:
    """Return when a span of frames begins and ends, for people."""
    return f"{clock(start / analysis.fps)} to {clock(end / analysis.fps)}"


def clock(seconds: float) -> str:
    """Return a time as 1:02.50."""
    seconds = round(seconds, 2)   # before it is split: 119.996 s are 2:00.00, not 1:60.00
    return f"{int(seconds // 60)}:{seconds % 60:05.2f}"


def _windows_of(analysis: Analysis, stretch: Stretch, wanted: Wanted) -> tuple[list[Window], list[Span]]:
    """Return the windows of a stretch; or none, and the stretch with the reason why it has none."""
    step = max(1, round(stretch.fps / wanted.fps))
    if stretch.fps / step < SLOWEST * wanted.fps:
        step = max(1, step - 1)
    fps, frames = stretch.fps / step, stretch.frames
    start, end = int(frames[0]), int(frames[-1]) + 1
    if _changes(analysis, stretch, frames).mean(0).max() < MOVES:
        return [], [Span(start, end, NOTHING_MOVES)]
    if reason := _too_slow(fps, wanted):
        return [], [Span(start, end, reason)]
    available = len(frames) // step
    if reason := _too_short(available, fps, wanted):
        return [], [Span(start, end, reason)]
    length = min(max(round(wanted.seconds * fps), _needed(fps, wanted)), available) * step
    starts = [*range(0, len(frames) - length, max(1, length // STRIDES)), len(frames) - length]
    windows = []
    for first in starts:
        own = _own_rate(analysis, stretch, frames[first:first + length])
        taken = frames[first:first + length:step]
        changes = _changes(analysis, stretch, taken).mean((1, 2))
        # the median: a flash is no motion
        windows.append(Window(analysis, stretch, taken, own / step, float(np.median(changes)) * own, ""))
    return windows, []


def _own_rate(analysis: Analysis, stretch: Stretch, frames: np.ndarray) -> float:
    """Return the new pictures a second of some frames of a stretch: its rate, if they come as it says."""
    late = frames[-1] - frames[0] - (len(frames) - 1) * analysis.fps / stretch.fps
    return stretch.fps if abs(late) <= JITTER else rate_of(frames, analysis.fps)


def _changes(analysis: Analysis, stretch: Stretch, frames: np.ndarray) -> np.ndarray:
    """Return the changes within `frames` in grey levels: (n 16 16)."""
    inside = stretch.frames[(stretch.frames > frames[0]) & (stretch.frames <= frames[-1])]
    return analysis.changes[inside].astype(np.float32) * CHANGE_UNIT


def _too_slow(fps: float, wanted: Wanted) -> str:
    if fps >= SLOWEST * wanted.fps:
        return ""
    return (f"shows {fps:.3g} new pictures a second, and training wants {wanted.fps:.3g}; --fps {fps:.3g} "
            f"would use it")


def _needed(fps: float, wanted: Wanted) -> int:
    """Return the frames that a clip of `fps` frames a second must have."""
    # where a clip is faster than `wanted.fps`, training takes fewer of its frames, so the clip must have more
    return math.ceil(wanted.window * max(1, fps / wanted.fps))


def _too_short(num_frames: int, fps: float, wanted: Wanted) -> str:
    needed = _needed(fps, wanted)
    if num_frames >= needed:
        return ""
    return f"lasts {num_frames / fps:.2g} s, and training needs {needed / fps:.2g} s in one shot"


def _fault(window: Window, best_sharpness: float, wanted: Wanted) -> str:
    if window.movement.max() < MOVES:
        return NOTHING_MOVES
    if window.sharpness < BLURRED * best_sharpness:
        return f"blurred: {window.sharpness / best_sharpness:.0%} as sharp as the best of its file"
    return _too_slow(window.fps, wanted) or _too_short(len(window.frames), window.fps, wanted)


def _merit(window: Window) -> str:
    movement = window.movement
    part = (movement > movement.max() / 4).mean()
    strength = "strong" if window.score > STRONG else "clear" if window.score > CLEAR else "slight"
    return (f"{strength} movement ({window.score:.0f}) over {part:.0%} of the picture, "
            f"shot {window.stretch.shot + 1}")


def _without_overlap(windows: list[Window]) -> list[Window]:
    kept = []
    for window in sorted(windows, key=lambda window: -window.score):
        start, end = window.span
        if not any(window.stretch is other.stretch and other.span[0] < end and start < other.span[1]
                   for other in kept):
            kept.append(window)
    return kept


def _even_light(thumbs: np.ndarray) -> np.ndarray:
    """Return thumbnails (... 16 16) around their mean brightness."""
    return thumbs.astype(np.float32) - thumbs.mean((-2, -1), keepdims=True, dtype=np.float32)
