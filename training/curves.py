"""The log of a run as curves of at most a thousand points, which a page can draw however long the run is."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MOST_POINTS = 1000
LOGGED = ("exemplar", "regularization", "lr", "grad_norm", "seconds")
HELD_OUT = ("held_out_exemplar", "held_out_regularization")   # logged every held_out_steps
SMOOTHED_OVER = 5     # measurements of the held-out loss
LEAST_RISE = 0.01     # of the smoothed held-out loss, relative to its minimum, that counts as a rise


class Curves:
    """Some columns of the log. Each point is the mean over a stretch of steps.

    The stretches are one step long at first. Whenever there are more than MOST_POINTS of them, neighbours are
    joined. So a step more costs the same in a long run as in a short one.
    """

    def __init__(self, names: Sequence[str], entries: Iterable[Mapping[str, Any]] = ()):
        self.names, self.length = names, 1
        # number of the stretch -> its last step, and (sum, count) of each column
        self.points: dict[int, tuple[int, list[tuple[float, int]]]] = {}
        for entry in entries:
            self.add(entry)

    def add(self, entry: Mapping[str, Any]) -> None:
        """Add a line of the log. A column that it lacks, or whose value is not finite, is left out."""
        values = [entry.get(name) for name in self.names]
        sums = [(float(value), 1) if value is not None and math.isfinite(value) else (0.0, 0)
                for value in values]
        if any(count for _, count in sums):
            self._join((entry["step"] - 1) // self.length, (entry["step"], sums))
        if len(self.points) > MOST_POINTS:
            self.length *= 2
            points, self.points = self.points, {}
            for number, point in points.items():
                self._join(number // 2, point)

    def columns(self) -> dict[str, list]:
        """Return {"step": [...], name: [...]} for the columns that have values; null where a point has
        none."""
        points = list(self.points.values())
        columns = {"step": [step for step, _ in points]}
        for index, name in enumerate(self.names):
            means = [_rounded(sums[index][0] / sums[index][1]) if sums[index][1] else None
                     for _, sums in points]
            if any(mean is not None for mean in means):
                columns[name] = means
        return columns

    def _join(self, number: int, point: tuple[int, list[tuple[float, int]]]) -> None:
        if number in self.points:
            pairs = zip(self.points[number][1], point[1])
            point = point[0], [(a + b, num + more) for (a, num), (b, more) in pairs]
        self.points[number] = point


def turning_point(steps: Sequence[int], losses: Sequence[float | None]) -> dict[str, Any] | None:
    """Return {"step", "has_risen"}: where the smoothed loss is lowest, and whether it has risen since.

    None where there are too few losses to tell. Smoothed: the mean of SMOOTHED_OVER neighbours.
    """
    known = [(step, loss) for step, loss in zip(steps, losses) if loss is not None]
    if len(known) <= SMOOTHED_OVER:
        return None
    half = SMOOTHED_OVER // 2
    smooth = []
    for place in range(len(known)):
        reach = min(half, place, len(known) - 1 - place)   # the same to both sides, or the ends would bend
        around = [loss for _, loss in known[place - reach : place + reach + 1]]
        smooth.append(sum(around) / len(around))
    lowest = min(range(len(smooth)), key=smooth.__getitem__)
    # the last points are smoothed over fewer neighbours: their mean is what counts
    now = sum(loss for _, loss in known[-half - 1:]) / (half + 1)
    has_risen = lowest < len(known) - half - 1 and now > (1 + LEAST_RISE) * smooth[lowest]
    return {"step": known[lowest][0], "has_risen": has_risen}


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")   # more digits than a screen shows would only make the page larger
