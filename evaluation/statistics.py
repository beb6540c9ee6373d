"""Means with their 95 % intervals, by the bootstrap, or by Student's t where there are few prompts.

Shapes: n measured values, p prompts, r resamplings.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

LEVEL = 0.95
NUM_RESAMPLINGS = 2000
# Student's t at LEVEL, by the number of prompts (degrees of freedom + 1). Resampled means of so few prompts
# never leave the range of their values. Source: NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2.
STUDENTS_T = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
FEW = max(STUDENTS_T)


@dataclass(frozen=True)
class Estimate:
    """A mean, the interval that contains the true mean with LEVEL probability, and the number of values."""

    mean: float | None     # None: there was nothing to measure
    low: float | None      # None: a single value says nothing about how much values vary
    high: float | None
    num: int
    num_prompts: int       # as many as values, unless some prompts have several seeds

    @property
    def interval(self) -> tuple[float, float]:
        """Low and high; the mean twice if there is a single value."""
        return (self.mean, self.mean) if self.low is None else (self.low, self.high)

    @property
    def num_independent(self) -> int:
        """What the interval rests on: the number of prompts, or of values where all are of one prompt."""
        return self.num if self.num_prompts == 1 else self.num_prompts

    @property
    def count(self) -> str:
        """The number of values for people: 16, or 16/8 where 16 values are of 8 prompts."""
        return f"{self.num}" + (f"/{self.num_prompts}" if self.num_prompts < self.num else "")


def estimate(values: Sequence[float], seed: int = 0, is_share: bool = False,
             limits: tuple[float, float] = (-np.inf, np.inf), prompts: Sequence[Hashable] | None = None
             ) -> Estimate:
    """Return the mean of `values` with its interval, the same for the same seed.

    `prompts` says which prompt each value is of; without it, each value is of a prompt of its own. Values of
    one prompt are alike, so the prompts are resampled, each with all its values: the cluster bootstrap.
    Source: Cameron and Miller 2015, Journal of Human Resources 50 (2). The prompts may agree by chance, so
    the interval is never narrower than if all values were independent. A single prompt has only the interval
    of its own seeds.

    The interval is made of percentiles of resampled means, widened for few prompts (see small_sample_tail).
    That of FEW prompts or fewer is Student's, within the `limits` that values have. With `is_share` the
    values are 0 and 1, or differences of such values, which have the limits -1 and 1. If all values agree,
    resampled means do not vary, and the interval is the exact binomial one of the number of prompts.
    """
    values = np.asarray(values, dtype=np.float64)
    if not len(values):
        return Estimate(None, None, None, 0, 0)
    order = {prompt: index for index, prompt in enumerate(dict.fromkeys(prompts or ()))}
    owners = np.array([order[prompt] for prompt in prompts]) if order else np.arange(len(values))      # (n)
    mean, num_prompts = float(values.mean()), int(owners.max()) + 1
    if len(values) == 1:
        return Estimate(mean, None, None, 1, 1)
    if is_share and not np.isfinite(limits).all():
        limits = (0.0, 1.0)
    if is_share and values.min() == values.max():
        # with 0.95 probability, at most this share of all values is another one
        reach = 1 - ((1 - LEVEL) / 2) ** (1 / (num_prompts if num_prompts > 1 else len(values)))
        low, high = mean - (mean - limits[0]) * reach, mean + (limits[1] - mean) * reach
    else:
        low, high = _interval(values, np.arange(len(values)), seed, limits)
        if 1 < num_prompts < len(values):
            wider = _interval(values, owners, seed, limits)
            low, high = min(low, wider[0]), max(high, wider[1])
    return Estimate(mean, float(low), float(high), len(values), num_prompts)


def _interval(values: np.ndarray, owners: np.ndarray, seed: int, limits: tuple[float, float]
              ) -> tuple[float, float]:
    """Return the interval of the mean of `values` (n). Values of one owner (n) are resampled together."""
    totals, counts = np.bincount(owners, values), np.bincount(owners)                  # (p), (p)
    num = len(totals)
    if num <= FEW:
        deviations = totals - values.mean() * counts
        reach = STUDENTS_T[num] * ((deviations**2).sum() / (num - 1)) ** 0.5 / counts.mean() / num**0.5
        low, high = np.clip((values.mean() - reach, values.mean() + reach), *limits)
        return low, high
    # (r p) indices: p owners drawn with replacement
    drawn = np.random.default_rng(seed).integers(0, num, (NUM_RESAMPLINGS, num))
    tail = small_sample_tail(num)
    low, high = np.quantile(totals[drawn].sum(axis=1) / counts[drawn].sum(axis=1), [tail, 1 - tail])
    return low, high


def small_sample_tail(num: int) -> float:
    """Return the percentile at which the interval of `num` prompts ends.

    Plain percentiles are too narrow for few values. The spread of a sample is too small by sqrt((n-1) / n),
    and it is uncertain itself, which Student's t takes into account. Source: Hesterberg 2015, arXiv
    1411.5279, the "expanded percentile" interval. t is computed by its expansion in 1 / degrees of freedom,
    Abramowitz and Stegun 26.7.5.
    """
    z, dof = NormalDist().inv_cdf((1 + LEVEL) / 2), num - 1
    t = z + (z**3 + z) / (4 * dof) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * dof**2)
    return NormalDist().cdf(-t * (num / dof) ** 0.5)
