"""Means with the interval they are known to, by the bootstrap.

Shapes: n measured values, r resamplings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

LEVEL = 0.95
NUM_RESAMPLINGS = 2000


@dataclass(frozen=True)
class Estimate:
    """A mean, the interval it lies in with LEVEL probability, and of how many values it is."""

    mean: float | None     # None: there was nothing to measure
    low: float | None      # None: one value alone says nothing about how much it varies
    high: float | None
    num: int


def estimate(values: Sequence[float], seed: int = 0, is_share: bool = False) -> Estimate:
    """Return the mean of `values` with its bootstrap interval, the same for the same seed.

    Percentiles of resampled means, widened for small n (see small_sample_tail). Of a share the values are 0
    and 1; where all agree, resampling never varies, and the interval is the exact binomial one.
    """
    values = np.asarray(values, dtype=np.float64)
    if not len(values):
        return Estimate(None, None, None, 0)
    mean = float(values.mean())
    if len(values) == 1:
        return Estimate(mean, None, None, 1)
    if is_share and mean in (0.0, 1.0):
        reach = 1 - ((1 - LEVEL) / 2) ** (1 / len(values))
        low, high = (1 - reach, 1.0) if mean else (0.0, reach)
    else:
        # (r n) indices: as many values as there are, drawn with replacement
        drawn = np.random.default_rng(seed).integers(0, len(values), (NUM_RESAMPLINGS, len(values)))
        tail = small_sample_tail(len(values))
        low, high = np.quantile(values[drawn].mean(axis=1), [tail, 1 - tail])
    return Estimate(mean, float(low), float(high), len(values))


def small_sample_tail(num: int) -> float:
    """Return the percentile at which the interval of `num` values ends.

    Plain percentiles are too narrow for few values: the spread of a sample is too small by sqrt((n-1) / n),
    and it is itself uncertain, as Student's t knows. Source: Hesterberg 2015, arXiv 1411.5279, the "expanded
    percentile" interval; t by its expansion in 1 / degrees of freedom, Abramowitz and Stegun 26.7.5.
    """
    z, dof = NormalDist().inv_cdf((1 + LEVEL) / 2), num - 1
    t = z + (z**3 + z) / (4 * dof) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * dof**2)
    return NormalDist().cdf(-t * (num / dof) ** 0.5)
