"""From the frames of one file to the stretches that clips may be cut from.

A stretch lies in one shot and has no black or still part. It lists only frames that show a new picture:
footage of 24 frames a second in a file of 30 has every fourth frame twice, and training would learn the
stutter.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from preparation.analysis import FAINT, MOST_SKIPPED, SAME_CELL, Analysis

BLACK = 20            # grey levels: a frame is black if no cell of it is brighter
PLATEAU_SECONDS = 1   # a fade from black ends at the greatest brightness within this time
FADED = 0.9           # of that brightness, below which a frame still fades
ABRUPT = 0.5          # of that brightness: beside black, a brighter frame means a cut instead of a fade
NEARBY = 5            # frames before and after a frame, whose changes its own change is compared with
MANY = 1 / 8          # of a shot's frames; if so many change faintly, the file repeats pictures
REFINED = 0.1         # of the greatest change nearby: in such a file, less is the same picture, refined
USUAL_FPS = (8, 10, 12, 12.5, 15, 24, 25, 30, 50, 60)   # a rate close to one of these counts as it
STILL_SECONDS = 0.3   # for which one picture may stay before it is cut out
RATE_SECONDS = 0.5    # for which pictures come at another rate before the stretch ends there
RATE_CHANGE = 1.15    # the factor from which rates differ
JITTER = 2            # frames of the file by which pictures at an even rate may come early or late


@dataclass(frozen=True)
class Span:
    """Frames of a file from `start` to before `end`, and the reason why they are left out."""

    start: int
    end: int
    reason: str


@dataclass(frozen=True)
class Stretch:
    """Part of one shot. `frames`: those that show a new picture. `fps`: new pictures a second, throughout."""

    shot: int
    frames: np.ndarray
    fps: float


def find_shots(analysis: Analysis) -> list[tuple[int, int]]:
    """Return (start, end) of the shots of a file, which leave out black frames and fades."""
    lit = ~_black_or_fading(analysis)
    shots = []
    for start, end in _true_runs(lit):
        edges = [start, *(int(cut) for cut in analysis.cuts if start < cut < end), end]
        shots += pairwise(edges)
    return shots


def find_stretches(analysis: Analysis, shots: list[tuple[int, int]]) -> tuple[list[Stretch], list[Span]]:
    """Return the stretches that clips may be cut from, and the spans that are left out, with reasons."""
    dark = np.ones(analysis.num_frames, bool)
    for start, end in shots:
        dark[start:end] = False
    spans = [Span(start, end, "black, or fading to or from black") for start, end in _true_runs(dark)]
    stretches = []
    for shot, (start, end) in enumerate(shots):
        new = np.flatnonzero(~_repeats(analysis.steps[start:end])) + start
        waits = np.diff(np.append(new, end))   # frames until the next new picture
        usual = np.median(waits[:-1]) if len(new) > 2 else 0
        is_still = waits > max(STILL_SECONDS * analysis.fps, 3 * usual)
        spans += [Span(int(frame), int(frame + wait), "a still picture")
                  for frame, wait in zip(new[is_still], waits[is_still], strict=True)]
        for frames in np.split(new, np.flatnonzero(is_still) + 1):
            # the frames at a cut may show traces of the other shot
            frames = frames[(frames > start) | (start == 0)]
            frames = frames[(frames < end - 1) | (end == analysis.num_frames)]
            stretches += [Stretch(shot, part, rate_of(part, analysis.fps))
                          for part in _even_parts(frames, analysis.fps) if len(part) > 1]
    return stretches, spans


def rate_of(frames: np.ndarray, fps: float) -> float:
    """Return how many of the pictures at `frames` come a second in a file of `fps` frames a second."""
    rate = float(fps * (len(frames) - 1) / (frames[-1] - frames[0]))
    usual = min((fps, *USUAL_FPS), key=lambda usual: abs(usual - rate))
    return usual if abs(usual / rate - 1) < 0.02 else rate


def _even_parts(frames: np.ndarray, fps: float) -> list[np.ndarray]:
    """Split the frames that show a new picture where pictures begin to come at another rate, for long."""
    parts, waiting = [], [frames]
    while waiting:
        part = waiting.pop()
        place = _rate_change(part, fps)
        if place:
            waiting += [part[place:], part[:place]]
        else:
            parts.append(part)
    return parts


def _rate_change(frames: np.ndarray, fps: float) -> int:
    """Return the place in `frames` where their rate changes most; 0 if it stays."""
    if len(frames) < 3:
        return 0
    waits = np.diff(frames)
    times = np.append(0, np.cumsum(np.minimum(waits, 3 * np.median(waits))))   # a pause is no other rate
    numbers = np.arange(len(times))
    # two rates are two straight lines, which lie farthest from the line of one even rate where they meet
    late = np.abs(times - numbers * times[-1] / numbers[-1])
    late[np.minimum(times, times[-1] - times) < RATE_SECONDS * fps] = 0
    place = int(late.argmax())
    if late[place] <= JITTER:
        return 0
    rates = place / times[place], (numbers[-1] - place) / (times[-1] - times[place])
    return place if max(rates) > RATE_CHANGE * min(rates) else 0


def _repeats(steps: np.ndarray) -> np.ndarray:
    """Say of each frame of one shot whether it shows the picture before once more: (n) bool."""
    steps = np.append(0, steps[1:])   # the first differs from another shot
    nearby = sliding_window_view(np.pad(steps, NEARBY), 2 * NEARBY + 1).max(1)
    repeats = steps < SAME_CELL
    share = FAINT if np.mean(steps < FAINT * nearby) < MANY else REFINED
    for start, end in _true_runs(steps < share * nearby):
        if end - start <= MOST_SKIPPED:   # longer runs are of a subject that pauses
            repeats[start:end] = True
    repeats[0] = False
    return repeats


def _black_or_fading(analysis: Analysis) -> np.ndarray:
    """Say of each frame whether it is black or on the way to or from it: (T) bool."""
    black = analysis.thumbs.max((1, 2)) <= BLACK
    brightness = analysis.thumbs.mean((1, 2))
    frames, dark = np.arange(analysis.num_frames), black.copy()
    reach = max(1, round(PLATEAU_SECONDS * analysis.fps))
    for start, end in _true_runs(black):
        for away in (frames[end:end + reach], frames[max(start - reach, 0):start][::-1]):   # from black on
            plateau = brightness[away].max(initial=0)
            if len(away) and brightness[away[0]] <= ABRUPT * plateau:
                has_ended = black[away] | (brightness[away] > FADED * plateau)
                dark[away[:has_ended.argmax()]] = True
    return dark


def _true_runs(claims: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of the runs of True."""
    edges = np.flatnonzero(np.diff(claims, prepend=False, append=False))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
