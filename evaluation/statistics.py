"""Means with their 95 % intervals, by the bootstrap, or by Student's t where there are few values.

Shapes: n measured values, r resamplings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

LEVEL = 0.95
NUM_RESAMPLINGS = 2000
# Student's t at LEVEL, by the number of values (degrees of freedom + 1). Resampled means of so few values
# never leave the range of the values. Source: NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2.
STUDENTS_T = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
FEW = max(STUDENTS_T)


@dataclass(frozen=True)
class Estimate:
    """A mean, the interval that contains the true mean with LEVEL probability, and the number of values."""

    mean: float | None     # None: there was nothing to measure
    low: float | None      # None: a single value says nothing about how much values vary
    high: float | None
    num: int

    @property
    def interval(self) -> tuple[float, float]:
        """Low and high; the mean twice if there is a single value."""
        return (self.mean, self.mean) if self.low is None else (self.low, self.high)


def estimate(values: Sequence[float], seed: int = 0, is_share: bool = False,
             limits: tuple[float, float] = (-np.inf, np.inf)) -> Estimate:
    """Return the mean of `values` with its interval, the same for the same seed.

    The interval is made of percentiles of resampled means, widened for small n (see small_sample_tail). That
    of FEW values or fewer is Student's, within the `limits` that values have. With `is_share` the values are
    0 and 1. If all of them agree, resampled means do not vary, and the interval is the exact binomial one.
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
    elif len(values) <= FEW:
        reach = STUDENTS_T[len(values)] * values.std(ddof=1) / len(values) ** 0.5
        low, high = np.clip((mean - reach, mean + reach), *((0, 1) if is_share else limits))
    else:
        # (r n) indices: n values drawn with replacement
        drawn = np.random.default_rng(seed).integers(0, len(values), (NUM_RESAMPLINGS, len(values)))
        tail = small_sample_tail(len(values))
        low, high = np.quantile(values[drawn].mean(axis=1), [tail, 1 - tail])
    return Estimate(mean, float(low), float(high), len(values))


def small_sample_tail(num: int) -> float:
    """Return the percentile at which the interval of `num` values ends.

    Plain percentiles are too narrow for few values. The spread of a sample is too small by sqrt((n-1) / n),
    and it is uncertain itself, which Student's t takes into account. Source: Hesterberg 2015, arXiv
    1411.5279, the "expanded percentile" interval. t is computed by its expansion in 1 / degrees of freedom,
    Abramowitz and Stegun 26.7.5.
    """
    z, dof = NormalDist().inv_cdf((1 + LEVEL) / 2), num - 1
    t = z + (z**3 + z) / (4 * dof) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * dof**2)
    return NormalDist().cdf(-t * (num / dof) ** 0.5)
