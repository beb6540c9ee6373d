"""When the frames of a video are shown, and which frames are shown at the moments of another rate.

Timestamps count ticks, the unit of time of a container. Some containers round them: Matroska to 1 ms.
"""

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from statistics import median_low

import numpy as np

LONGEST_TICK = Fraction(1, 1000)   # seconds. A longer tick is the duration of a frame and rounds nothing
VARIES = 0.2   # share by which a frame has to be shown longer or shorter than the median frame
JUMP = 10      # seconds. After such a gap, a stream that may be several recordings has started a new clock
EXACT = 1e-6   # seconds, for sums of floats


def mended(stamps: Sequence[int | None], usual: int, longest: float) -> tuple[list[int], int]:
    """Return timestamps that start at 0 and never go back, and how many had to be changed.

    A frame follows the frame before at the distance `usual` where a timestamp is missing, goes back, or comes
    more than `longest` later.
    """
    times, num_changed, before = [0], 0, stamps[0]
    for stamp in stamps[1:]:
        step = None if stamp is None or before is None else stamp - before
        if step is None or not 0 <= step <= longest:
            step, num_changed = usual, num_changed + 1
        times.append(times[-1] + step)
        before = before if stamp is None else stamp
    return times, num_changed


def usual_step(stamps: Sequence[int | None], fallback: float) -> int:
    """Return the median distance of two timestamps, or `fallback` where there are no two in order."""
    steps = [b - a for a, b in pairwise(stamps) if a is not None and b is not None and b > a]
    return median_low(steps) if steps else max(1, round(fallback))


def own_rate(times: Sequence[int], usual: int, tick: Fraction, rounding: int, varies: bool,
             declared: Sequence[Fraction]) -> Fraction:
    """Return the frames per second of a video: the mean, or the median if the rate `varies`.

    The time for which the last frame is held does not count. Timestamps may be off by `rounding` ticks. So a
    `declared` rate is taken where it lies within the rounding.
    """
    steps = [b - a for a, b in pairwise(times)]
    steps = [step for step in steps if not varies or abs(step - usual) <= rounding] or [usual]
    mean = Fraction(sum(steps), len(steps)) * tick
    tolerance = Fraction(min(rounding, 1), sum(steps))
    return next((rate for rate in declared if abs(mean * rate - 1) <= tolerance), 1 / mean)


def range_of_rates(times: Sequence[int], usual: int, tick: Fraction,
                   rounding: int) -> tuple[float, float] | None:
    """Return the lowest and the highest rate; None if they differ by no more than `rounding`, in ticks."""
    steps = [b - a for a, b in pairwise(times)]
    if all(abs(step - usual) <= max(rounding, VARIES * usual) for step in steps):
        return None
    return float(1 / (max(steps) * tick)), float(1 / (min(step for step in steps if step) * tick))


def shown_at(seconds: Sequence[float], end: float, tick: float, fps: float) -> tuple[int, ...]:
    """Return the number of the frame shown at each moment k / fps, for all k until `end`.

    A frame is shown from its moment in `seconds` until the moment of the next frame. A moment may be
    rounded by one tick, of at most 1 ms.
    """
    rounding = min(tick, float(LONGEST_TICK)) + EXACT
    num_moments = max(1, int(np.ceil((end - rounding) * fps)))
    moments = np.arange(num_moments) / fps
    return tuple((np.searchsorted(seconds, moments + rounding, side="right") - 1).tolist())
